"""Label errors on a table of 6,000 rows: processor time and AUC of `mislabeled` beside cleanlab.

`PYTHONPATH=CLEANLAB python -m benchmarks.mislabeled --data DIR`, with OMP_NUM_THREADS=1; cleanlab is in that folder.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from benchmarks.results import Section, Table, verdict, versions
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import upweight as uw

ROWS, WRONG, ROUNDS = 6_000, 600, 3
MOST = 3.0  # times cleanlab's processor time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with tables-lime.zip")
    frame = census(parser.parse_args().data)
    y = (frame.iloc[:, -1] == frame.iloc[0, -1]).astype(int).to_numpy()
    noisy = y.copy()
    wrong = np.random.default_rng(0).choice(ROWS, WRONG, replace=False)
    noisy[wrong] ^= 1
    planted = np.isin(np.arange(ROWS), wrong)
    table = Table(
        f"The census, {ROWS:,} rows of which {WRONG} have a wrong label",
        f"at most {MOST:g} times cleanlab's processor time, at no worse AUC",
        ["model", "cleanlab CPU s", "AUC", "upweight CPU s", "AUC", "ratio", ""],
    )
    for name, (x, estimator) in models(frame.iloc[:, :-1]).items():
        estimator.fit(x, noisy)
        rounds = [(timed(cleanlab, estimator, x, noisy), timed(ours, estimator, x, noisy)) for _ in range(ROUNDS + 1)]
        theirs, mine = (statistics.median(both[side][0] for both in rounds[1:]) for side in (0, 1))  # the first imports
        ratio = statistics.median(both[1][0] / both[0][0] for both in rounds[1:])
        areas = [roc_auc_score(planted, rounds[-1][side][1]) for side in (0, 1)]
        met = ratio <= MOST and areas[1] >= areas[0]
        figures = [f"{theirs:.2f}", f"{areas[0]:.4f}", f"{mine:.2f}", f"{areas[1]:.4f}", f"{ratio:.1f}"]
        table.add(name, *figures, verdict(met))
    names = ["numpy", "scikit-learn", "lightgbm", "cleanlab", "upweight"]
    command = "OMP_NUM_THREADS=1 PYTHONPATH=CLEANLAB python -m benchmarks.mislabeled --data DIR"
    Section("mislabeled", "Label errors, beside cleanlab", command, [table], versions(names)).keep()


def census(data: Path) -> pd.DataFrame:
    with zipfile.ZipFile(data / "tables-lime.zip") as archive:
        name = next(name for name in archive.namelist() if name.endswith("adult.csv"))
        frame = pd.read_csv(io.BytesIO(archive.read(name)), skipinitialspace=True)
    return frame.sample(ROWS, random_state=0).reset_index(drop=True)


def models(x: pd.DataFrame) -> dict[str, tuple[Any, Any]]:
    import lightgbm

    numbers = x.select_dtypes("number").columns.tolist()
    categories = [name for name in x if name not in numbers]
    encoder = make_column_transformer((StandardScaler(), numbers), (OneHotEncoder(handle_unknown="ignore"), categories))
    return {
        "logistic regression": (x, make_pipeline(encoder, LogisticRegression(max_iter=1000))),
        "LightGBM, 100 trees": (
            x.astype(dict.fromkeys(categories, "category")),
            lightgbm.LGBMClassifier(n_jobs=1, verbose=-1),
        ),
        "histogram boosting (numbers alone)": (x[numbers], HistGradientBoostingClassifier(random_state=0)),
        "random forest, 100 trees": (
            pd.get_dummies(x).astype(float),
            RandomForestClassifier(100, random_state=0, n_jobs=1),
        ),
    }


def timed(find: Callable[..., Any], *parts: Any) -> tuple[float, Any]:
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        suspicion = find(*parts)
    return time.process_time() - began, suspicion


def cleanlab(estimator: Any, x: Any, y: Any) -> Any:
    from cleanlab.classification import CleanLearning

    return -CleanLearning(clone(estimator), seed=0).find_label_issues(x, y)["label_quality"]


def ours(estimator: Any, x: Any, y: Any) -> Any:
    train = uw.Examples(x, y)
    return uw.mislabeled(uw.explainable(estimator, train), train).score


if __name__ == "__main__":
    main()

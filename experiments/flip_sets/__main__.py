"""python -m experiments.flip_sets --data DIR: sizes of flip sets beside those of brittleness, on the same queries."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from benchmarks.results import versions
from benchmarks.trees import adult
from experiments.results import Result, Row
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import upweight as uw

TRAIN, QUERIES, MOST = 400, 12, 40
TEXTS: dict[str, Any] = {
    "title": "Flip sets beside brittleness",
    "claim": "The flip set of a prediction is no larger than the removal that brittleness finds.",
    "section": "Smallest removals that flip a prediction",
    "name": "brittleness",
    "command": "python -m experiments.flip_sets --data DIR",
    "settings": f"Logistic regression on {TRAIN} examples with standardised columns; {QUERIES} queries drawn from the "
    f"least sure half; at most {MOST} examples removed; both by `Influence`, both proved by retraining.",
    "notes": [
        "Brittleness removes in the order of the influences on the query. A flip set begins with the same order, and "
        "is searched again one example at a time with new influences after each.",
    ],
}


def data_sets(folder: Path) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """(name, inputs, labels)."""
    yield "breast cancer", *load_breast_cancer(return_X_y=True)
    x, y = load_digits(return_X_y=True)
    yield "odd digits", x, y % 2
    frame, income = adult(folder)
    yield "Adult", pd.get_dummies(frame).to_numpy(dtype=np.float64), np.asarray(income)


def sizes(x: NDArray[Any], y: NDArray[Any]) -> tuple[list[int | None], list[int | None], float]:
    """(sizes of the flip sets, of brittleness; None if nothing flips; processor seconds of a flip set)."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    rows, others = order[:TRAIN], order[TRAIN : TRAIN + 150]
    scaler = StandardScaler().fit(x[rows])
    train, queries = (uw.Examples(scaler.transform(x[part]), y[part]) for part in (rows, others))
    model = uw.explainable(LogisticRegression(C=0.1, max_iter=5000, tol=1e-8).fit(train.x, train.y), train)
    unsure = np.argsort(model.predict(queries).probabilities.max(axis=1), kind="stable")[: len(queries) // 2]
    queries = queries.take(np.sort(rng.choice(unsure, QUERIES, replace=False)))
    retraining = uw.Retraining(processes=1)
    scores = uw.Influence().fit(model, train).attribute(queries)
    brittle = uw.brittleness(model, train, queries, scores, most=MOST, retraining=retraining)
    search, start = uw.SetSearch(method=uw.Influence(), most=MOST, exhaustive=0), time.process_time()
    flips = [
        uw.flip_set(model, train, queries.select([flip.query]), search=search, retraining=retraining).size
        for flip in brittle.flips
    ]
    return flips, [flip.size for flip in brittle.flips], (time.process_time() - start) / QUERIES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with tables-lime.zip (adult.csv)")
    folder, start, rows, numbers = parser.parse_args().data, time.process_time(), [], {}
    for name, x, y in data_sets(folder):
        ours, brittle, seconds = sizes(x, y)
        print(name, ours, brittle, f"{seconds:.1f} s each", flush=True)
        numbers[name] = {"flip sets": ours, "brittleness": brittle}
        pairs = [(a or MOST + 1, b or MOST + 1) for a, b in zip(ours, brittle, strict=True)]
        smaller, larger = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
        means = ", ".join(f"{np.mean([size for size in column if size]):.1f}" for column in (ours, brittle))
        found = ", ".join(str(sum(size is not None for size in column)) for column in (ours, brittle))
        text = f"{smaller} / {larger} of {QUERIES}; found {found}; mean size {means}; {seconds:.1f} s each"
        rows.append(Row(f"{name}: flip sets smaller / larger than brittleness", "none larger", text, larger == 0))
    installed = versions(["numpy", "scipy", "scikit-learn", "upweight"])
    seconds = time.process_time() - start
    result = Result(rows=rows, numbers=numbers, seconds=seconds, versions=installed, **TEXTS)
    print(result.keep(Path(__file__).parent / "results"))


if __name__ == "__main__":
    main()

"""Film reviews (SST-2) with 250 labels, by `uw.reweight`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from experiments.discover.reviews import reviews
from experiments.results import Result, Row
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import upweight as uw

SEEDS = 3
LABELLED, VALIDATION, UNLABELLED, TEST = 250, 1_000, 4_000, 4_000
COMPONENTS, PENALTY = 150, 0.01
READ = 10_500  # reviews, some of which have the features of another one


def outcome(folder: Path) -> dict[str, Any]:
    """Accuracies, losses and weights."""
    rows = []
    for seed in range(SEEDS):
        texts, labels = reviews(folder, np.random.default_rng(seed))
        features = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), min_df=3, sublinear_tf=True),
            TruncatedSVD(COMPONENTS, random_state=0),
            StandardScaler(),
        ).fit_transform(texts[:READ])
        _, first = np.unique(features.round(6), axis=0, return_index=True)  # many are parts of others
        first, ends = np.sort(first), np.cumsum([LABELLED, VALIDATION, UNLABELLED, TEST])
        features, y = features[first], labels[first]
        lx, vx, ux, tx = np.split(features[: ends[3]], ends[:3])
        ly, vy, uy, ty = np.split(y[: ends[3]], ends[:3])
        train = uw.Examples(lx, ly)
        model = uw.explainable(LogisticRegression(C=PENALTY, tol=1e-8, max_iter=1000).fit(lx, ly), train)
        held_out = uw.Examples(tx, ty)
        result = uw.reweight(model, train, uw.Examples(vx, vy), held_out=held_out, unlabelled=uw.Examples(ux))
        pseudo = result.train.y[LABELLED:]
        both = LogisticRegression(C=PENALTY, max_iter=1000).fit(np.concatenate([lx, vx]), np.concatenate([ly, vy]))
        single = result.gain_beside("one weight")
        row = {
            "supervised": float(np.mean(model.estimator.predict(tx) == ty)),
            "validation too": float(np.mean(both.predict(tx) == ty)),
            "learned": result.accuracy,
            **{gain.weights: gain.accuracy for gain in result.gains},
            "single": single.described,
            "gain": single.gain,
            "interval": single.interval,
            "wrong": float((pseudo != uy).mean()),
            "area": float(roc_auc_score(pseudo != uy, -result.weights)),
        }
        rows.append(row)
        print(row, flush=True)
    return {"rows": rows}


def result(numbers: dict[str, Any]) -> Result:
    """The table."""
    rows = numbers["rows"]
    mean = {
        key: float(np.mean([row[key] for row in rows]))
        for key in (
            "learned",
            "uniform",
            "one weight",
            "supervised",
            "validation too",
            "random",
            "gain",
            "wrong",
            "area",
        )
    }
    intervals = ", ".join(f"{low:+.3f} to {high:+.3f}" for low, high in (row["interval"] for row in rows))
    return Result(
        title="Film reviews with 250 labels",
        claim="On language too, a weight per unlabelled example beats the best single weight.",
        rows=[
            Row(
                "test accuracy, a weight per review beside the best single one",
                "better",
                f"{mean['learned']:.3f} beside {mean['one weight']:.3f}",
                mean["learned"] > mean["one weight"],
            ),
            Row(
                "mean log-loss: gain beside the best single weight (nats), 90 % intervals of the seeds",
                "above 0",
                f"{mean['gain']:+.4f} ({intervals})",
                all(row["interval"][0] > 0 for row in rows),
            ),
            Row("AUC of low weights for wrong pseudo-labels", "above 0.5", f"{mean['area']:.3f}", mean["area"] > 0.5),
            Row("test accuracy with weight 1 for all", "–", f"{mean['uniform']:.3f}"),
            Row("test accuracy with 250 labels alone", "–", f"{mean['supervised']:.3f}"),
            Row(
                "test accuracy with the labels of the validation reviews as training labels",
                "–",
                f"{mean['validation too']:.3f}",
            ),
            Row("test accuracy with the learned weights at random places", "–", f"{mean['random']:.3f}"),
            Row("wrong pseudo-labels", "–", f"{mean['wrong']:.1%}"),
        ],
        settings=f"SST-2: {LABELLED} labelled, {VALIDATION:,} validation, {UNLABELLED:,} unlabelled and {TEST:,} test "
        f"reviews; TF-IDF of words and pairs, {COMPONENTS} components, logistic regression (C = {PENALTY:g}); "
        f"`uw.reweight` with its defaults, {SEEDS} seeds.",
        section="Learned weights: Ren, Yeh & Schwing (2020)",
        name="reviews",
        command="PYTHONPATH=. python -m experiments.reweighting reviews --data DIR",
        notes=["The paper uses IMDb and a BERT encoder; neither was at hand."],
        numbers=numbers,
    )

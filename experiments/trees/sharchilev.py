"""Sharchilev et al. (2018), Adult: 4,000 flipped labels, removed by influence on one prediction and by a detector."""

from __future__ import annotations

from typing import Any

import numpy as np
from catboost import CatBoostClassifier
from experiments.results import Result, Row

import upweight as uw

FLIPPED, QUERY, STEP, STEPS = 4_000, 899, 800, 5
PLAIN = {"bootstrap_type": "No", "boosting_type": "Plain", "leaf_estimation_iterations": 1, "random_seed": 0}


def run(x: np.ndarray, y: np.ndarray, others: int = 4) -> Result:
    """Log-loss of single test rows after removing training rows in two orders."""
    rows = len(y) * 4 // 5
    flipped = np.random.default_rng(20).choice(rows, FLIPPED, replace=False)
    noisy = y.copy()
    noisy[flipped] = 1 - noisy[flipped]
    train = uw.Examples(x[:rows], noisy[:rows])
    test = uw.Examples(x[rows:], y[rows:], ids=np.arange(len(y) - rows))
    quiet = {"verbose": 0, "allow_writing_files": False, "thread_count": 1}
    booster = CatBoostClassifier(iterations=100, learning_rate=0.2, depth=6, **PLAIN, **quiet)
    model = uw.explainable(booster.fit(train.x, train.y), train)
    wrong = test.ids[model.measure(test) < np.log(0.5)]
    chosen = [QUERY, *np.random.default_rng(0).choice(wrong, others, replace=False).tolist()]
    queries = test.select(chosen)
    influence = uw.LeafInfluence(update="single").fit(model, train).attribute(queries).values
    detector = np.argsort(model.measure(train), kind="stable")  # the label's own probability, least first
    by_detector = curve(model, train, queries, detector)
    by_influence = np.stack(
        [curve(model, train, queries.take([q]), np.argsort(influence[q], kind="stable"))[0] for q in range(len(chosen))]
    )
    hit = [float(np.isin(order[:FLIPPED], flipped).mean()) for order in (*np.argsort(influence, axis=1), detector)]
    return result(by_influence, by_detector, hit, rows)


def curve(model: Any, train: uw.Examples, queries: uw.Examples, order: np.ndarray) -> np.ndarray:
    """Loss of every query with 0, STEP, 2 STEP … training rows of this order removed, (queries, steps + 1)."""
    losses = [-model.measure(queries)]
    for step in range(1, STEPS + 1):
        weights = np.ones(len(train))
        weights[order[: step * STEP]] = 0.0
        losses.append(-model.retrain(train, weights).measure(queries))
    return np.stack(losses, axis=1)


def result(influence: np.ndarray, detector: np.ndarray, hit: list[float], rows: int) -> Result:
    first, last = influence[0], influence[0, -1]
    return Result(
        title="LeafInfluence against a detector on Adult",
        claim="Removing training rows by LeafInfluence lowers the log-loss of the row for which it was computed much "
        "more than removing the rows that a noise detector finds; the detector finds flipped labels slightly better.",
        rows=[
            Row(
                f"log-loss of test row {QUERY} after {STEP * STEPS:,} removals, influence / detector "
                f"(before: {first[0]:.3f})",
                "much lower by influence",
                f"{last:.3f} / {detector[0, -1]:.3f}",
                bool(last < detector[0, -1]),
            ),
            Row(
                f"mean over {len(influence) - 1} misjudged test rows (before: {influence[1:, 0].mean():.3f})",
                "–",
                f"{influence[1:, -1].mean():.3f} / {detector[1:, -1].mean():.3f}",
                bool(influence[1:, -1].mean() < detector[1:, -1].mean()),
            ),
            Row(
                f"share of flipped labels among the first {FLIPPED:,}, influence / detector",
                "detector slightly better",
                f"{np.mean(hit[:-1]):.2f} / {hit[-1]:.2f}",
                bool(hit[-1] >= np.mean(hit[:-1])),
            ),
        ],
        settings=f"Adult, {rows:,} rows, {FLIPPED:,} labels flipped (seed 20); CatBoost, 100 trees, rate .2, depth 6, "
        f"one Newton step, plain boosting; single point; retrained after every {STEP} removals instead of every 50.",
        section="Boosted trees: Sharchilev et al. (2018), Brophy et al. (2023)",
        name="sharchilev",
        command="python -m experiments.trees --data DIR",
        notes=[
            "Categories are coded as numbers: with CatBoost's target statistics, leaf values are not sums of "
            "training rows."
        ],
        numbers={"influence": influence.tolist(), "detector": detector.tolist(), "removed": STEP},
    )

"""Brophy, Hammoudeh & Lowd (2023): what happens to a prediction when the rows said to help it most are removed."""

from __future__ import annotations

import lightgbm
import numpy as np
from experiments.results import Result, Row

import upweight as uw
from upweight.core.attributor import Attributor

SHARES = (0.001, 0.005, 0.01, 0.015, 0.02)
METHODS: dict[str, Attributor] = {
    "LeafInfluence, all points, 30 bags": uw.LeafInfluence(bags=30),
    "LeafRefit": uw.LeafRefit(),
    "LeafInfluence, all points": uw.LeafInfluence(),
    "BoostIn": uw.BoostIn(),
    "LeafInfSP": uw.LeafInfluence(update="single"),
    "TREX": uw.TREX(),
    "TreeSim": uw.TreeSim(),
    "random": uw.Chance(),
}


def run(x: np.ndarray, y: np.ndarray, rows: int = 2_000, query_count: int = 15) -> Result:
    """The mean rise of the test loss, method by method and share by share."""
    whole = uw.Examples(x, y)
    train, queries = whole.take(np.arange(rows)), whole.take(np.arange(rows, rows + query_count))
    booster = lightgbm.LGBMClassifier(n_estimators=100, num_leaves=15, n_jobs=1, verbose=-1)
    model = uw.explainable(booster.fit(train.x, train.y), train)
    before = model.measure(queries)
    rises = {}
    for name, recipe in METHODS.items():
        order = np.argsort(-recipe.fit(model, train).attribute(queries).values, axis=1, kind="stable")
        changes = np.empty((query_count, len(SHARES)))
        for q, place in np.ndindex(changes.shape):
            weights = np.ones(rows)
            weights[order[q, : max(1, round(SHARES[place] * rows))]] = 0.0
            changes[q, place] = before[q] - model.retrain(train, weights).measure(queries.take([q]))[0]
        rises[name] = changes.mean(axis=0)
        print(name, rises[name], flush=True)
    total = {name: float(rise.mean()) for name, rise in rises.items()}
    published = {name: total[name] for name in ("BoostIn", "LeafInfSP", "TREX", "TreeSim")}
    best = max(total, key=total.__getitem__)
    return Result(
        title="Removing what helped most",
        claim="Of the published methods that need no retraining, removing the rows that BoostIn ranks first raises the "
        "loss of a test row most.",
        rows=[
            Row("best of the published methods", "BoostIn", max(published, key=published.__getitem__)),
            Row("best of all here", "–", best, total[best] > max(published.values())),
            *[
                Row(name, "–", ", ".join(f"{value:.3f}" for value in rise) + f"; mean {total[name]:.3f}")
                for name, rise in rises.items()
            ],
        ],
        settings=f"Adult, {rows:,} rows, {query_count} test rows; LightGBM, 100 trees of 15 leaves; mean rise of the "
        "loss in nats with "
        f"{', '.join(f'{100 * share:g}' for share in SHARES)} % of the rows removed, with retraining each "
        "time.",
        section="Boosted trees: Sharchilev et al. (2018), Brophy et al. (2023)",
        name="brophy",
        command="python -m experiments.trees --data DIR",
        numbers={name: rise.tolist() for name, rise in rises.items()},
    )

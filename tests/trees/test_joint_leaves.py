"""CatBoost's leaf values of several classes, solved for jointly: with every split where it was, by a plain loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris

import upweight as uw

catboost = pytest.importorskip("catboost")
ROWS, L2, RATE = 60, 3.0, 0.3
X, Y = (part[np.random.default_rng(0).permutation(150)[: ROWS + 5]] for part in load_iris(return_X_y=True))
WEIGHTS = {"equal": None, "counts": 1.0 + np.arange(ROWS) % 3, "some are 0": (np.arange(ROWS) % 7 > 0).astype(float)}


def fitted(weights: Any) -> Any:
    """Four trees for three classes, with the settings that CatBoost takes by default."""
    booster = catboost.CatBoostClassifier(
        iterations=4, depth=2, learning_rate=RATE, l2_leaf_reg=L2, thread_count=1, verbose=0, allow_writing_files=False
    )
    return booster.fit(X[:ROWS], Y[:ROWS], sample_weight=weights)


def losses_without(booster: Any, weights: np.ndarray, removed: list[int]) -> np.ndarray:
    """The loss of every query after Newton steps on the other rows, tree by tree."""
    leaves = booster.calc_leaf_indexes(X).reshape(len(X), -1)
    z = np.tile(booster.get_scale_and_bias()[1], (len(X), 1)).astype(float)
    rest = weights * ~np.isin(np.arange(ROWS), removed)
    l2 = L2 * rest.sum() / (ROWS - (weights[removed] > 0).sum())  # per mean weight of the rows that are left
    for tree in range(leaves.shape[1]):
        p = np.exp(z[:ROWS]) / np.exp(z[:ROWS]).sum(1, keepdims=True)
        step = np.zeros_like(z)
        for leaf in np.unique(leaves[:ROWS, tree]):
            rows = np.flatnonzero((leaves[:ROWS, tree] == leaf) & (rest > 0))
            if not len(rows):
                continue
            g = sum(rest[i] * (p[i] - np.eye(3)[Y[i]]) for i in rows)
            h = sum(rest[i] * (np.diag(p[i]) - np.outer(p[i], p[i])) for i in rows)
            step[leaves[:, tree] == leaf] = -RATE * np.linalg.solve(h + l2 * np.eye(3), g)
        z += step
    return np.asarray(np.log(np.exp(z[ROWS:]).sum(1)) - z[np.arange(ROWS, len(X)), Y[ROWS:]])


@pytest.mark.parametrize("name", WEIGHTS)
def test_leaf_refits_solve_for_all_classes_together(name: str) -> None:
    weights = WEIGHTS[name]
    booster, counts = fitted(weights), np.ones(ROWS) if weights is None else weights
    train = uw.Examples(X[:ROWS], Y[:ROWS], weights=weights)
    queries = uw.Examples(X[ROWS:], Y[ROWS:], ids=list("abcde"))
    fit = uw.LeafRefit().fit(uw.explainable(booster, train), train)
    scores = fit.attribute(queries)
    before = losses_without(booster, counts, [])
    np.testing.assert_allclose(-scores.measured, before, atol=1e-6)
    for i in (0, 7, 20):
        np.testing.assert_allclose(scores.values[:, i], losses_without(booster, counts, [i]) - before, atol=1e-6)
    assert scores.unit == uw.Unit.EFFECT
    group = [1, 2, 3, 30]
    effects = fit.remove({"some": group}, queries).values[:, 0]
    np.testing.assert_allclose(effects, losses_without(booster, counts, group) - before, atol=1e-6)


def test_leaf_influence_has_no_joint_derivative_and_says_so() -> None:
    train = uw.Examples(X[:ROWS], Y[:ROWS])
    with pytest.raises(ValueError, match=r"solved for jointly\. Use LeafRefit"):
        uw.LeafInfluence().fit(uw.explainable(fitted(None), train), train)

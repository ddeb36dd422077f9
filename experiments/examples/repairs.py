"""Labels that are flipped, checked in the order of a suspicion, and repaired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

Array = NDArray[Any]
NEIGHBOURS = 10


def flipped(y: Array, share: float, seed: int) -> Array:
    """The labels of two classes with a share of them flipped."""
    wrong = y.copy()
    chosen = np.random.default_rng(seed).choice(len(y), round(share * len(y)), replace=False)
    wrong[chosen] = 1 - wrong[chosen]
    return wrong


def softmax_regression(x: Array, y: Array, l2: float) -> LogisticRegression:
    """With this l2 on one logit per class and the mean loss; two classes have one logit, and half of it."""
    classes = len(np.unique(y))
    strength = l2 / 2 if classes == 2 else l2
    return LogisticRegression(C=1 / (strength * len(y)), tol=1e-6, max_iter=5000).fit(x, y)


def neighbours_of_other_labels(x: Array, y: Array) -> Array:
    """The share of the ten nearest other examples that have another label, (n,)."""
    nearest = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(x).kneighbors(x, return_distance=False)[:, 1:]
    return (y[nearest] != y[:, None]).mean(axis=1)


def curve(
    x: Array,
    y: Array,
    wrong: Array,
    suspicion: Array,
    checked: Sequence[float],
    l2: float,
    test: tuple[Array, Array],
) -> Array:
    """(test accuracy after each repair, share of the flips fixed), (2, checked)."""
    order, flips = np.argsort(-suspicion, kind="stable"), np.flatnonzero(y != wrong)
    result = np.empty((2, len(checked)))
    for place, share in enumerate(checked):
        repaired, first = wrong.copy(), order[: round(share * len(y))]
        repaired[first] = y[first]
        result[:, place] = softmax_regression(x, repaired, l2).score(*test), np.isin(flips, first).mean()
    return result

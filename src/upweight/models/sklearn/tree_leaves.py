"""New leaf values in copies of scikit-learn's trees."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from upweight.models.tree_spec import WrittenLeaves

Array = NDArray[np.float64]


def gradient_boosting_with(estimator: Any, leaves: WrittenLeaves) -> Any:
    """A copy of a GradientBoosting* with these leaf values, whose constant is fitted to the labels."""
    new = copy.deepcopy(estimator)
    for tree, of_tree in enumerate(new.estimators_.ravel()):
        values = leaves.ensemble.values[leaves.ensemble.leaves_of(tree)]
        _write(of_tree.tree_, values / estimator.learning_rate)
    if hasattr(estimator.init_, "fit"):  # not init="zero"
        labels = leaves.targets[0] if len(leaves.targets) == 1 else leaves.targets.argmax(axis=0)
        new.init_ = clone(estimator.init_).fit(leaves.x, labels, sample_weight=leaves.weights)
    return new


def histogram_boosting_with(estimator: Any, leaves: WrittenLeaves) -> Any:
    """A copy of a HistGradientBoosting* with these leaf values and this base."""
    new = copy.deepcopy(estimator)
    trees = [tree for step in new._predictors for tree in step]
    for tree, of_tree in enumerate(trees):
        is_leaf = of_tree.nodes["is_leaf"].astype(bool)
        of_tree.nodes["value"][is_leaf] = leaves.ensemble.values[leaves.ensemble.leaves_of(tree), 0]
    old = np.asarray(new._baseline_prediction)
    new._baseline_prediction = leaves.ensemble.base.reshape(old.shape).astype(old.dtype)
    return new


def forest_with(estimator: Any, leaves: WrittenLeaves) -> Any:
    """A copy of a forest, or of a single tree, with these leaf values."""
    new = copy.deepcopy(estimator)
    members = np.ravel(getattr(new, "estimators_", [new]))
    for tree, member in enumerate(members):
        _write(member.tree_, leaves.ensemble.values[leaves.ensemble.leaves_of(tree)] * len(members))
    return new


def _write(tree: Any, values: Array) -> None:
    """Write values (leaves, K) into the leaves of a tree."""
    nodes = np.flatnonzero(tree.children_left == -1)
    tree.value[nodes] = values.reshape(len(nodes), *tree.value.shape[1:])


def writer(
    write: Callable[[Any, WrittenLeaves], Any], estimator: Any, margins_of: Callable[[Any, Any], Array]
) -> Callable[[WrittenLeaves], tuple[Any, Callable[[Any], Array]]]:
    """Leaf values → (a copy of the estimator with them, its raw predictions)."""

    def written(leaves: WrittenLeaves) -> tuple[Any, Callable[[Any], Array]]:
        new = write(estimator, leaves)
        return new, partial(margins_of, new)

    return written

"""Leaf values that were solved for jointly: one Newton step in all outputs, with the full Hessian of the loss.

CatBoost takes it for several classes: −learning_rate · (H + l2)⁻¹ G with H (K, K) summed over the examples of a leaf.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from upweight.trees.boosting import Boosting, LeafRule
from upweight.trees.ensemble import Indices
from upweight.trees.fixed_structure import base_changes

Array = NDArray[np.float64]


def reproduced_jointly(boosting: Boosting) -> Array:
    """Leaf values computed from the training set, (leaves, K)."""
    values = np.zeros_like(boosting.ensemble.values)
    for step in boosting.steps():
        for tree in step.trees:
            leaves = boosting.ensemble.leaves_of(tree)
            values[leaves] = _values(boosting, tree, step.margins[..., None], [])[..., 0]
    return values


def refit_jointly(boosting: Boosting, removed: Sequence[Indices]) -> tuple[Array, Array]:
    """Leaf values without these examples minus with them, (leaves, K, removals); of the base, (K, removals)."""
    ensemble, base = boosting.ensemble, base_changes(boosting, removed)
    margins = np.repeat((ensemble.base[:, None] + base)[:, None, :], len(boosting.weights), axis=1)
    change = np.zeros((*ensemble.values.shape, len(removed)))
    for trees in ensemble.by_step():
        for tree in trees:
            in_tree = ensemble.leaves_of(tree)
            change[in_tree] = _values(boosting, tree, margins, removed) - boosting.reproduced[in_tree, :, None]
            margins += (ensemble.values[in_tree, :, None] + change[in_tree])[boosting.local_leaves(tree)].swapaxes(0, 1)
    return change, base


def _values(boosting: Boosting, tree: int, margins: Array, removed: Sequence[Indices]) -> Array:
    """The values of a tree's leaves for margins (K, n, removals) without these examples: (leaves, K, removals)."""
    outputs, n, columns = margins.shape
    targets, remaining = boosting.targets[..., None], np.ones((n, columns))
    for column, rows in enumerate(removed):
        remaining[rows, column] = 0.0
    gradient, _ = boosting.loss.derivatives(margins, targets)
    leaf_sums = boosting.leaf_matrices[tree]
    count = leaf_sums.shape[0]
    g, h = np.empty((count, columns, outputs)), np.empty((count, columns, outputs, outputs))
    for first in range(outputs):
        g[..., first] = leaf_sums @ (gradient[first] * remaining)
        for second in range(first + 1):
            mixed = boosting.loss.mixed_derivative(gradient, targets, first, second)
            h[..., first, second] = h[..., second, first] = leaf_sums @ (mixed * remaining)
    return _solve(boosting.rule, g, h, boosting.ensemble.leaves_of(tree)).swapaxes(1, 2)


def _solve(rule: LeafRule, g: Array, h: Array, leaves: slice) -> Array:
    """−learning_rate · (h + l2)⁻¹ g, (leaves, removals, K). A leaf without examples takes no step."""
    shifted = h + rule.l2[leaves][:, None, None, None] * np.eye(h.shape[-1])
    step = -rule.learning_rate * np.linalg.solve(shifted, g[..., None])[..., 0]
    is_empty = np.trace(h, axis1=2, axis2=3) <= rule.min_hessian
    return np.asarray(np.where(is_empty[..., None], 0.0, step))

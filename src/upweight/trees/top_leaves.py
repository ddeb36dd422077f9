"""Leaf influence with the update set TopKLeaves: every tree follows only leaves whose margins changed most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from upweight.trees.boosting import Boosting, BoostingStep
from upweight.trees.ensemble import Indices
from upweight.trees.fixed_structure import base_derivative

Array = NDArray[np.float64]


def top_leaves_derivative(boosting: Boosting, examples: Indices, k: int) -> tuple[Array, Array]:
    """∂ leaf values / ∂ log weight of each of these examples, (leaves, width, examples); of the base (K, examples).

    LeafInfluence with the update set TopKLeaves (Sharchilev et al. 2018, section 3.1.3). In every tree, the k leaves in
    which Σ |∂ margin| is largest before the tree are followed: their values change with the margins of all their
    examples, and the margins of all their examples change with their values. The example itself is always followed.
    If its leaf is not among the k, that leaf changes with the margin of this example alone, and moves no other
    example. Ties, as in the first tree, go to the leaf with the smaller number. All of this is as CatBoost does it.

    A row that counts for several examples is that many copies, each of which follows its own margin.
    """
    ensemble, rule, n = boosting.ensemble, boosting.rule, len(boosting.weights)
    columns, targets = np.arange(len(examples)), boosting.targets
    counts = np.maximum(boosting.counts, 1.0)[examples]
    copy_weights, is_one = boosting.weights[examples] / counts, counts <= 1.0
    base = base_derivative(boosting)[:, examples] * boosting.weights[examples]
    copy_dz = base / counts  # (K, examples), of the copy whose weight changes
    dz = np.repeat(
        copy_dz[:, None, :], n, axis=1
    )  # (K, n, examples), of rows; in the row of the example itself, of its other copies
    change = np.zeros((*ensemble.values.shape, len(examples)))
    old, (_, h_totals) = boosting.reproduced, boosting.leaf_totals
    added = np.empty(dz.shape[1:])
    for step in boosting.steps():
        followed = _derivative_changes(boosting, step, dz)
        own_changes = boosting.loss.derivatives_jvp(step.margins[:, examples], targets[:, examples], copy_dz)
        of_rows, of_copy = _margin_changes(boosting, step.trees, dz), _margin_changes(boosting, step.trees, copy_dz)
        for tree in step.trees:
            in_tree, local = ensemble.leaves_of(tree), boosting.local_leaves(tree)
            matrix, outputs = boosting.leaf_matrices[tree], ensemble.outputs_of(tree)
            at = (local[examples], columns)
            leaf_changes = np.asarray(matrix @ of_rows[tree])
            leaf_changes[at] += copy_weights * (of_copy[tree] - of_rows[tree][examples, columns])
            is_top = _largest(leaf_changes, k)
            for column, output in enumerate(range(*outputs.indices(len(targets)))):
                sums = []
                for of_all, of_own, direct in zip(followed, own_changes, (step.gradient, step.hessian), strict=True):
                    total = np.zeros(leaf_changes.shape)
                    if of_all is not None and of_own is not None:
                        total = of_all.leaf_sums(matrix, output) * is_top
                        total[at] -= is_top[at] * copy_weights * of_all.at(output, examples, columns)
                        total[at] += copy_weights * of_own[output]
                    total[at] += copy_weights * direct[output, examples]
                    sums.append(total)
                value, h_total = old[in_tree, column, None], h_totals[in_tree, column, None]
                copy_change = rule.value_change(value, h_total, sums[0], sums[1], in_tree)
                change[in_tree, column] = copy_change * counts
                copy_dz[output] += copy_change[at]
                dz[output] += np.take(copy_change * is_top, local, axis=0, out=added, mode="clip")
                dz[output, examples[is_one], columns[is_one]] = copy_dz[output, is_one]
    return change, base


@dataclass(frozen=True, eq=False)
class _DerivativeChange:
    """How a derivative of the losses changes with the margins: `slopes` · `dz`, (K, n, examples).

    If every output has a loss of its own, `slopes` is (K, n), and the product is never formed. Else `slopes` is None,
    and `dz` is the change of the derivative itself.
    """

    slopes: Array | None
    dz: Array

    def leaf_sums(self, matrix: sparse.csr_matrix, output: int) -> Array:
        """Sums over the examples of every leaf, (leaves, examples)."""
        if self.slopes is not None:
            data = matrix.data * self.slopes[output, matrix.indices]
            matrix = sparse.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)
        return np.asarray(matrix @ self.dz[output])

    def at(self, output: int, rows: Indices, columns: Indices) -> Array:
        """The changes for these rows in these columns."""
        dz = np.asarray(self.dz[output, rows, columns])
        return dz if self.slopes is None else dz * self.slopes[output, rows]


def _derivative_changes(boosting: Boosting, step: BoostingStep, dz: Array) -> list[_DerivativeChange | None]:
    """Changes of gradients and of second derivatives; None for second derivatives that are constant or not used."""
    loss, targets, is_used = boosting.loss, boosting.targets, (True, boosting.rule.newton)
    if loss.coupled:
        changes = loss.derivatives_jvp(step.margins[..., None], targets[..., None], dz)
        parts: list[tuple[Array | None, Array | None]] = [(None, change) for change in changes]
    else:
        slopes = loss.derivatives_jvp(step.margins, targets, np.ones_like(targets))
        parts = [(slope, None if slope is None else dz) for slope in slopes]
    return [
        None if of_dz is None or not used else _DerivativeChange(slope, of_dz)
        for (slope, of_dz), used in zip(parts, is_used, strict=True)
    ]


def _margin_changes(boosting: Boosting, trees: range, dz: Array) -> dict[int, Array]:
    """Σ |dz| over the outputs that the gradients of each tree depend on: all of them if the classes are coupled."""
    if boosting.loss.coupled:
        return dict.fromkeys(trees, np.abs(dz).sum(axis=0))
    outputs = {tree: range(*boosting.ensemble.outputs_of(tree).indices(len(dz))) for tree in trees}
    return {tree: np.asarray(sum(np.abs(dz[output]) for output in of_tree)) for tree, of_tree in outputs.items()}


def _largest(numbers: Array, k: int) -> NDArray[np.bool_]:
    """Which numbers ≥ 0 (leaves, examples) are among the k largest of each example; ties go to the first leaf."""
    share = np.round(numbers / np.maximum(numbers.max(axis=0), 1e-300), 10)  # sums that differ by rounding are equal
    is_largest = np.zeros(numbers.shape, dtype=bool)
    np.put_along_axis(is_largest, np.argsort(-share, axis=0, kind="stable")[:k], True, axis=0)
    return is_largest

"""Boosting at fixed structure: how leaf values change with the training set while every split stays where it is.

`refit` is exact for removals. The derivatives are first order in the example weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks
from upweight.trees.boosting import Boosting
from upweight.trees.ensemble import Indices, TreeEnsemble

Array = NDArray[np.float64]
MAX_MARGINS = 300_000  # margins (outputs × examples × removals) in memory at a time
MAX_CACHED_MARGINS = 32_000  # margins that go through the loss at a time: they fit the processor's cache
MIN_BLOCK = 8  # removals in a block, however many margins each of them has


def margin_blocks(boosting: Boosting, count: int) -> Iterator[slice]:
    """Blocks of `count` removals or queries, each with at most MAX_MARGINS margins of training examples."""
    outputs, n = boosting.targets.shape
    return blocks(count, max(MIN_BLOCK, MAX_MARGINS // (outputs * n)))


def refit(boosting: Boosting, removed: Sequence[Indices]) -> tuple[Array, Array]:
    """Leaf values without these examples minus with them, (leaves, width, removals); of the base, (K, removals).

    LeafRefit of Sharchilev et al. (2018): boosting is replayed with every split where it was, and gradients follow the
    new values of earlier leaves. `removed` has the positions in the training set of each removal.
    """
    if boosting.rule.is_joint:
        return _refit_jointly(boosting, removed)
    ensemble, rule, outputs = boosting.ensemble, boosting.rule, len(boosting.targets)
    rows = np.concatenate([np.asarray(r, dtype=np.intp) for r in removed])
    columns = np.repeat(np.arange(len(removed)), [len(r) for r in removed])
    removed_weights, l2_factors = boosting.weights[rows], boosting.l2_factors(removed)
    base = base_changes(boosting, removed)
    margins = np.repeat((ensemble.base[:, None] + base)[:, None, :], len(boosting.weights), axis=1)
    g, h, added = np.empty_like(margins), np.ones_like(margins), np.empty_like(margins[0])
    change = np.zeros((*ensemble.values.shape, len(removed)))
    old = boosting.reproduced
    for trees in ensemble.by_step():
        _write_derivatives(boosting, margins, g, h)
        for tree in trees:
            in_tree, local = ensemble.leaves_of(tree), boosting.local_leaves(tree)
            for column, output in enumerate(range(*ensemble.outputs_of(tree).indices(outputs))):
                sums = []
                for per_example in (g[output], h[output]):
                    total = np.asarray(boosting.leaf_matrices[tree] @ per_example)
                    np.subtract.at(total, (local[rows], columns), removed_weights * per_example[rows, columns])
                    sums.append(total)
                value_change = rule.values(sums[0], sums[1], in_tree, l2_factors) - old[in_tree, column, None]
                change[in_tree, column] = value_change
                np.take(ensemble.values[in_tree, column, None] + value_change, local, axis=0, out=added, mode="clip")
                margins[output] += added
    return change, base


def _refit_jointly(boosting: Boosting, removed: Sequence[Indices]) -> tuple[Array, Array]:
    """The same for leaf values that are solved for in all outputs together."""
    ensemble, base = boosting.ensemble, base_changes(boosting, removed)
    margins = np.repeat((ensemble.base[:, None] + base)[:, None, :], len(boosting.weights), axis=1)
    change = np.zeros((*ensemble.values.shape, len(removed)))
    for trees in ensemble.by_step():
        for tree in trees:
            leaves = ensemble.leaves_of(tree)
            change[leaves] = boosting.joint_values(tree, margins, removed) - boosting.reproduced[leaves, :, None]
            margins += (ensemble.values[leaves, :, None] + change[leaves])[boosting.local_leaves(tree)].swapaxes(0, 1)
    return change, base


def _write_derivatives(boosting: Boosting, margins: Array, g: Array, h: Array) -> None:
    """Gradients and second derivatives at margins (K, n, removals), written into g and h."""
    outputs, n, columns = margins.shape
    for block in blocks(n, max(1, MAX_CACHED_MARGINS // (outputs * columns))):
        gradient, second = boosting.loss.derivatives(margins[:, block], boosting.targets[:, block, None])
        g[:, block] = gradient
        if boosting.rule.newton:
            h[:, block] = second


def reverse_derivative(boosting: Boosting, leaves: Indices, slopes: Array) -> Array:
    """Σ_k slopes · ∂ margins of the queries / ∂ weight of every example, those of weight 0 included: (queries, n).

    `leaves` (queries, trees) and `slopes` (queries, K) belong to the queries. LeafInfluence that follows every margin
    (AllPoints) is a product of one linear step per tree. Taken from the last tree to the first, that product costs
    queries × examples × trees instead of examples² × trees.
    """
    ensemble, rule, weights = boosting.ensemble, boosting.rule, boosting.weights
    outputs, n, queries = len(boosting.targets), len(weights), len(leaves)
    adjoint = np.zeros((outputs, n, queries))  # ∂ query / ∂ margin of each example, per unit of the example's weight
    scores, columns = np.zeros((n, queries)), np.arange(queries)
    margins, (_, h_totals) = np.ascontiguousarray(ensemble.margins(boosting.leaves).T), boosting.leaf_totals
    for trees in reversed(list(ensemble.by_step())):
        dg, dh = np.zeros_like(adjoint), np.zeros_like(adjoint)
        for tree in trees:
            in_tree, local = ensemble.leaves_of(tree), boosting.local_leaves(tree)
            margins[ensemble.outputs_of(tree)] -= ensemble.values[boosting.leaves[:, tree]].T
            for column, output in enumerate(range(*ensemble.outputs_of(tree).indices(outputs))):
                value_adjoint = np.asarray(boosting.leaf_matrices[tree] @ adjoint[output])
                np.add.at(value_adjoint, (leaves[:, tree] - in_tree.start, columns), slopes[:, output])
                value = boosting.reproduced[in_tree, column, None]
                value_adjoint *= -rule.inverse_denominator(value, h_totals[in_tree, column, None], in_tree)
                dg[output] += (rule.learning_rate * value_adjoint)[local]
                dh[output] += (value * value_adjoint)[local]
        g, h = boosting.loss.derivatives(margins, boosting.targets)
        h = h if rule.newton else np.ones_like(h)
        for output in range(outputs):
            scores += dg[output] * g[output, :, None] + dh[output] * h[output, :, None]
        dh_of_margins = dh if rule.newton else np.zeros_like(dh)
        adjoint += boosting.loss.derivatives_vjp(margins[..., None], boosting.targets[..., None], dg, dh_of_margins)
    base_adjoint = slopes.T + np.einsum("n,knm->km", weights, adjoint)
    return np.asarray((scores + base_derivative(boosting).T @ base_adjoint).T)


def forward_derivative(boosting: Boosting, examples: Indices) -> tuple[Array, Array]:
    """∂ leaf values / ∂ log weight of each of these examples, (leaves, width, examples); of the base (K, examples).

    LeafInfluence of Sharchilev et al. (2018) with the update set AllPoints: every margin is followed, example by
    example. `reverse_derivative` gives the same answer at a cost that grows with the queries instead.
    """
    ensemble, rule, targets = boosting.ensemble, boosting.rule, boosting.targets[..., None]
    columns, example_weights = np.arange(len(examples)), boosting.weights[examples]
    base = base_derivative(boosting)[:, examples] * boosting.weights[examples]
    dz = np.repeat(base[:, None, :], len(boosting.weights), axis=1)
    change = np.zeros((*ensemble.values.shape, len(examples)))
    old, (_, h_totals) = boosting.reproduced, boosting.leaf_totals
    for step in boosting.steps():
        dg, dh = boosting.loss.derivatives_jvp(step.margins[..., None], targets, dz)
        for tree in step.trees:
            in_tree, local = ensemble.leaves_of(tree), boosting.local_leaves(tree)
            matrix = boosting.leaf_matrices[tree]
            for column, output in enumerate(range(*ensemble.outputs_of(tree).indices(len(targets)))):
                g = np.asarray(matrix @ dg[output])
                h = np.asarray(matrix @ dh[output]) if dh is not None and rule.newton else np.zeros_like(g)
                np.add.at(g, (local[examples], columns), example_weights * step.gradient[output, examples])
                np.add.at(h, (local[examples], columns), example_weights * step.hessian[output, examples])
                value, total = old[in_tree, column, None], h_totals[in_tree, column, None]
                change[in_tree, column] = rule.value_change(value, total, g, h, in_tree)
                dz[output] += change[in_tree, column][local]
    return change, base


def single_point_derivative(boosting: Boosting) -> tuple[Array, Array]:
    """∂ (value of the leaf that i is in) / ∂ log weight of i, with the others' margins held.

    LeafInfluence with the update set SinglePoint (Sharchilev et al. 2018): n × trees numbers cover all examples. A row
    that counts for several examples is that many copies: each follows its own margin, with those of the others held.

    Returns:
        The derivatives (n, trees, width), and those of the base (K, n).
    """
    ensemble, rule, n = boosting.ensemble, boosting.rule, len(boosting.weights)
    counts = np.maximum(boosting.counts, 1.0)
    copy_weights = boosting.weights / counts
    base = base_derivative(boosting) * boosting.weights
    dz = base / counts
    change = np.zeros((ensemble.width, ensemble.trees, n)).T  # column order: it is written tree by tree
    old, (_, h_totals) = boosting.reproduced, boosting.leaf_totals
    for step in boosting.steps():
        dg, dh = boosting.loss.derivatives_jvp(step.margins, boosting.targets, dz)
        for tree in step.trees:
            in_tree, local = ensemble.leaves_of(tree), boosting.local_leaves(tree)
            for column, output in enumerate(range(*ensemble.outputs_of(tree).indices(len(dz)))):
                value = old[in_tree, column]
                inverse = rule.inverse_denominator(value, h_totals[in_tree, column], in_tree)
                h = step.hessian[output] + dh[output] if dh is not None and rule.newton else step.hessian[output]
                copy_change = (-rule.learning_rate * inverse)[local] * (step.gradient[output] + dg[output])
                copy_change -= (value * inverse)[local] * h
                copy_change *= copy_weights
                change[:, tree, column] = copy_change * counts
                dz[output] += copy_change
    return change, base


def margin_changes(ensemble: TreeEnsemble, leaves: Indices, change: Array, base: Array) -> Array:
    """How the margins of examples in these leaves change: (m, K, columns).

    Leaf values change by `change` (leaves, width, columns), and the base by `base` (K, columns).
    """
    out = np.repeat(base[None], len(leaves), axis=0)
    for first_output in np.unique(ensemble.outputs).tolist():
        membership = ensemble.membership(leaves[:, ensemble.outputs == first_output])
        for column in range(ensemble.width):
            out[:, first_output + column] += membership @ change[:, column]
    return out


def base_changes(boosting: Boosting, removed: Sequence[Indices]) -> Array:
    """The base without these examples minus with them, (K, removals)."""
    out = np.zeros((len(boosting.targets), len(removed)))
    if not boosting.base_is_fitted:
        return out
    weights = boosting.weights if boosting.base_weights is None else boosting.base_weights
    sums = boosting.targets @ weights
    before = boosting.loss.link(sums / weights.sum())
    for column, rows in enumerate(removed):
        mean = (sums - boosting.targets[:, rows] @ weights[rows]) / (weights.sum() - weights[rows].sum())
        out[:, column] = boosting.loss.link(mean) - before
    return out


def base_derivative(boosting: Boosting) -> Array:
    """∂ base / ∂ weight of every example, (K, n).

    If the base leaves out the weights of classes, a weight counts in it by the share of it that is the example's own.
    """
    if not boosting.base_is_fitted:
        return np.zeros_like(boosting.targets)
    weights = boosting.weights if boosting.base_weights is None else boosting.base_weights
    total = weights.sum()
    mean = (boosting.targets @ weights / total)[:, None]
    slope = np.asarray(boosting.loss.link_slope(mean) * (boosting.targets - mean) / total)
    if boosting.base_weights is None:
        return slope
    return slope * np.divide(weights, boosting.weights, out=np.ones_like(weights), where=boosting.weights > 0)

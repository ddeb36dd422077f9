"""Fixed structure: leaf values after other training sets, splits kept; exactly, and to first order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.weights import example_counts
from upweight.trees.boosting import Boosting
from upweight.trees.ensemble import Indices, TreeEnsemble

Array = NDArray[np.float64]
TOGETHER = 300_000  # margins under removals that are held at a time
CACHED = 32_000  # and of these, as many as go through the loss at a time: what stays in the processor's cache


def margin_blocks(boosting: Boosting, count: int) -> Iterator[slice]:
    """How many removals go together."""
    outputs, n = boosting.targets.shape
    size = max(8, TOGETHER // (outputs * n))
    yield from (slice(start, min(start + size, count)) for start in range(0, count, size))


def refit(boosting: Boosting, removed: Sequence[Indices]) -> tuple[Array, Array]:
    """Leaf values without these examples minus with them: (leaves, width, removals), and of the base (K, removals).

    Sharchilev et al. (2018), LeafRefit: boosting is run through again with every split where it was; gradients see what
    earlier leaves have become. One column per removal (positions in the training set).
    """
    ensemble, rule, outputs = boosting.ensemble, boosting.rule, len(boosting.targets)
    rows = np.concatenate([np.asarray(r, dtype=np.intp) for r in removed])
    columns = np.repeat(np.arange(len(removed)), [len(r) for r in removed])
    gone = boosting.weights[rows]
    base = base_changes(boosting, removed)
    margins = np.repeat((ensemble.base[:, None] + base)[:, None, :], len(boosting.weights), axis=1)
    g, h, added = np.empty_like(margins), np.ones_like(margins), np.empty_like(margins[0])
    change = np.zeros((*ensemble.values.shape, len(removed)))
    old = boosting.reproduced
    for trees in ensemble.by_step():
        _slopes(boosting, margins, g, h)
        for tree in trees:
            where, local = ensemble.leaves_of(tree), boosting.local_leaves(tree)
            for place, output in enumerate(range(*ensemble.outputs_of(tree).indices(outputs))):
                sums = []
                for slopes in (g[output], h[output]):
                    total = np.asarray(boosting.leaf_matrices[tree] @ slopes)
                    np.subtract.at(total, (local[rows], columns), gone * slopes[rows, columns])
                    sums.append(total)
                moved = rule.values(sums[0], sums[1], where) - old[where, place, None]
                change[where, place] = moved
                np.take(ensemble.values[where, place, None] + moved, local, axis=0, out=added, mode="clip")
                margins[output] += added
    return change, base


def _slopes(boosting: Boosting, margins: Array, g: Array, h: Array) -> None:
    """Gradients and second derivatives at margins (K, n, removals), written into g and h a part at a time."""
    outputs, n, columns = margins.shape
    size = max(1, CACHED // (outputs * columns))
    for start in range(0, n, size):
        part = slice(start, start + size)
        first, second = boosting.loss.derivatives(margins[:, part], boosting.targets[:, part, None])
        g[:, part] = first
        if boosting.rule.newton:
            h[:, part] = second


def reverse_derivative(boosting: Boosting, leaves: Indices, slopes: Array) -> Array:
    """Σ_k slopes · ∂ margins of queries / ∂ weight of every example (also of those that weigh nothing): (queries, n).

    `leaves` (m, trees) and `slopes` (m, K) are the queries'. LeafInfluence with every margin followed (AllPoints) is
    a product of one linear step per tree; taken from the last tree to the first, it costs queries × examples × trees
    instead of examples² × trees.
    """
    ensemble, rule, weights = boosting.ensemble, boosting.rule, boosting.weights
    outputs, n, m = len(boosting.targets), len(weights), len(leaves)
    pull = np.zeros((outputs, n, m))  # ∂ what is asked / ∂ margin of each example, per unit of its weight
    scores, columns = np.zeros((n, m)), np.arange(m)
    margins, (_, total) = np.ascontiguousarray(ensemble.margins(boosting.leaves).T), boosting.leaf_totals
    for trees in reversed(list(ensemble.by_step())):
        dg, dh = np.zeros_like(pull), np.zeros_like(pull)
        for tree in trees:
            where, local = ensemble.leaves_of(tree), boosting.local_leaves(tree)
            margins[ensemble.outputs_of(tree)] -= ensemble.values[boosting.leaves[:, tree]].T
            for place, output in enumerate(range(*ensemble.outputs_of(tree).indices(outputs))):
                asked = np.asarray(boosting.leaf_matrices[tree] @ pull[output])
                np.add.at(asked, (leaves[:, tree] - where.start, columns), slopes[:, output])
                value = boosting.reproduced[where, place, None]
                asked *= -rule.inverse_denominator(value, total[where, place, None], where)
                dg[output] += (rule.learning_rate * asked)[local]
                dh[output] += (value * asked)[local]
        g, h = boosting.loss.derivatives(margins, boosting.targets)
        h = h if rule.newton else np.ones_like(h)
        for output in range(outputs):
            scores += dg[output] * g[output, :, None] + dh[output] * h[output, :, None]
        after = dh if rule.newton else np.zeros_like(dh)
        pull += boosting.loss.derivatives_vjp(margins[..., None], boosting.targets[..., None], dg, after)
    reach = slopes.T + np.einsum("n,knm->km", weights, pull)
    return np.asarray((scores + base_derivative(boosting).T @ reach).T)


def forward_derivative(
    boosting: Boosting, examples: Indices, update: Literal["all"] | int = "all"
) -> tuple[Array, Array]:
    """∂ leaf values / ∂ log weight of each of these examples: (leaves, width, examples), and of the base (K, examples).

    Sharchilev et al. (2018), LeafInfluence. A number k follows, tree by tree, the margins of the training examples in
    the k leaves where margins move most in sum (TopKLeaves). "all" follows every margin, example by example;
    `reverse_derivative` gives the same answer at a cost that grows with the queries instead.
    """
    ensemble, rule, targets = boosting.ensemble, boosting.rule, boosting.targets[..., None]
    columns, own = np.arange(len(examples)), boosting.weights[examples]
    base = base_derivative(boosting)[:, examples] * boosting.weights[examples]
    shift = np.repeat(base[:, None, :], len(boosting.weights), axis=1)
    change = np.zeros((*ensemble.values.shape, len(examples)))
    old, (_, total) = boosting.reproduced, boosting.leaf_totals
    for step in boosting.steps():
        dg, dh = boosting.loss.derivatives_jvp(step.margins[..., None], targets, shift)
        for tree in step.trees:
            where, local = ensemble.leaves_of(tree), boosting.local_leaves(tree)
            members = boosting.leaf_matrices[tree]
            for place, output in enumerate(range(*ensemble.outputs_of(tree).indices(len(targets)))):
                g = np.asarray(members @ dg[output])
                h = np.asarray(members @ dh[output]) if dh is not None and rule.newton else np.zeros_like(g)
                if update != "all":
                    still = _still(np.asarray(members @ np.abs(shift[output])), update)
                    g[still] = h[still] = 0.0
                np.add.at(g, (local[examples], columns), own * step.gradient[output, examples])
                np.add.at(h, (local[examples], columns), own * step.hessian[output, examples])
                change[where, place] = rule.value_change(
                    old[where, place, None], total[where, place, None], g, h, where
                )
                shift[output] += change[where, place][local]
    return change, base


def single_point_derivative(boosting: Boosting) -> tuple[Array, Array]:
    """∂ (value of the leaf that i is in) / ∂ log weight of i, others' margins held: (n, trees, width), and base (K, n).

    Sharchilev et al. (2018), LeafInfluence with the update set SinglePoint: n × trees numbers stand for all examples.
    Of a row that counts for several examples each follows its own margin, and holds that of its copies.
    """
    ensemble, rule, n = boosting.ensemble, boosting.rule, len(boosting.weights)
    counts = np.maximum(example_counts(boosting.weights), 1.0)
    own = boosting.weights / counts  # of one copy
    base = base_derivative(boosting) * boosting.weights
    shift = base / counts
    change = np.zeros((ensemble.width, ensemble.trees, n)).T  # written tree by tree
    old, (_, total) = boosting.reproduced, boosting.leaf_totals
    for step in boosting.steps():
        dg, dh = boosting.loss.derivatives_jvp(step.margins, boosting.targets, shift)
        for tree in step.trees:
            where, local = ensemble.leaves_of(tree), boosting.local_leaves(tree)
            for place, output in enumerate(range(*ensemble.outputs_of(tree).indices(len(shift)))):
                value = old[where, place]
                give = rule.inverse_denominator(value, total[where, place], where)
                h = step.hessian[output] + dh[output] if dh is not None and rule.newton else step.hessian[output]
                moved = (-rule.learning_rate * give)[local] * (step.gradient[output] + dg[output])
                moved -= (value * give)[local] * h
                moved *= own
                change[:, tree, place] = moved * counts
                shift[output] += moved
    return change, base


def margin_changes(ensemble: TreeEnsemble, leaves: Indices, change: Array, base: Array) -> Array:
    """How the margins of examples at these leaves move: (m, K, columns) for changes (leaves, width, columns)."""
    out = np.repeat(base[None], len(leaves), axis=0)
    for first in np.unique(ensemble.outputs).tolist():
        member = ensemble.membership(leaves[:, ensemble.outputs == first])
        for place in range(ensemble.width):
            out[:, first + place] += member @ change[:, place]
    return out


def base_changes(boosting: Boosting, removed: Sequence[Indices]) -> Array:
    """The base without these examples minus with them, (K, removals)."""
    out = np.zeros((len(boosting.targets), len(removed)))
    if not boosting.base_is_fitted:
        return out
    w, sums = boosting.weights, boosting.targets @ boosting.weights
    before = boosting.loss.link(sums / w.sum())
    for column, gone in enumerate(removed):
        mean = (sums - boosting.targets[:, gone] @ w[gone]) / (w.sum() - w[gone].sum())
        out[:, column] = boosting.loss.link(mean) - before
    return out


def base_derivative(boosting: Boosting) -> Array:
    """∂ base / ∂ weight of every example, (K, n)."""
    if not boosting.base_is_fitted:
        return np.zeros_like(boosting.targets)
    total = boosting.weights.sum()
    mean = (boosting.targets @ boosting.weights / total)[:, None]
    return np.asarray(boosting.loss.link_slope(mean) * (boosting.targets - mean) / total)


def _still(moved: Array, k: int) -> NDArray[np.bool_]:
    """Leaves (leaves, examples) that are not among the k that moved most, example by example."""
    if k >= len(moved):
        return np.zeros_like(moved, dtype=bool)
    rank = np.argsort(np.argsort(-moved, axis=0, kind="stable"), axis=0, kind="stable")
    return np.asarray((rank >= k) | (moved == 0))

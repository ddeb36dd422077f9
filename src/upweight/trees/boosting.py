"""Boosting: how leaf values followed from the training set, replayed from staged margins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.ensemble import Indices, TreeEnsemble

Array = NDArray[np.float64]
SAME = 1e-4  # libraries sum in single precision: what leaf values may differ by, of the largest of their tree
EMPTY = 1e-12  # a sum of second derivatives below which a leaf has nobody in it


@dataclass(frozen=True, eq=False)
class LeafRule:
    """A leaf's value from the sums G, H over its examples: −learning_rate · clip(soft(G, l1) / (H + l2), max_step).

    Attributes:
        learning_rate: the learning rate.
        l2: (leaves,) what is added to H, leaf by leaf (LightGBM adds more below categorical splits).
        l1: what |G| is reduced by.
        max_step: the largest step before the rate; 0 for no limit.
        newton: H sums second derivatives; else it counts (CatBoost's "Gradient" leaves).
    """

    learning_rate: float
    l2: Array
    l1: float = 0.0
    max_step: float = 0.0
    newton: bool = True

    def values(self, g: Array, h: Array, leaves: slice) -> Array:
        """Leaf values for sums (leaves of the tree, …); a leaf without examples takes no step."""
        below = h + self._l2(leaves, h)
        if self.l1:
            g = np.sign(g) * np.maximum(np.abs(g) - self.l1, 0.0)
        step = np.divide(-g, below, out=np.zeros_like(below), where=(below > EMPTY) & (h > EMPTY))
        if self.max_step:
            step = np.clip(step, -self.max_step, self.max_step)
        return self.learning_rate * step

    def value_change(self, value: Array, h: Array, dg: Array, dh: Array, leaves: slice | Indices) -> Array:
        """How values made from sums h move when the sums move by dg and dh; all have the leaves first."""
        return -(self.learning_rate * dg + value * dh) * self.inverse_denominator(value, h, leaves)

    def inverse_denominator(self, value: Array, h: Array, leaves: slice | Indices) -> Array:
        """1 / (H + l2), or 0 where a leaf cannot move: nobody is in it, or its value is clipped."""
        below = h + self._l2(leaves, h)
        fixed = (below <= EMPTY) | (h <= EMPTY)
        if self.l1:
            fixed |= value == 0
        if self.max_step:
            fixed |= np.abs(value) >= self.learning_rate * self.max_step * (1 - 1e-12)
        return np.where(fixed, 0.0, 1.0 / np.where(fixed, 1.0, below))

    def _l2(self, leaves: slice | Indices, like: Array) -> Array:
        return self.l2[leaves].reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True, eq=False)
class BoostingStep:
    """One boosting step: its trees, and every training example's margins and slopes before it, all (K, n)."""

    trees: range
    margins: Array
    gradient: Array
    hessian: Array


@dataclass(frozen=True, eq=False)
class Boosting:
    """A boosted ensemble and the examples it grew from.

    Attributes:
        leaves: (n, trees) the leaf of every training example in every tree.
        targets: (K, n) what the loss made of the labels.
        weights: (n,) sample weights.
        base_is_fitted: the base is the best constant for the training set and moves when examples go; else it is fixed.
        unrecorded: what happened in training that no library keeps (subsampling, dropped trees, …), in words.
    """

    ensemble: TreeEnsemble
    loss: BoostingLoss
    rule: LeafRule
    leaves: Indices
    targets: Array
    weights: Array
    base_is_fitted: bool = False
    unrecorded: tuple[str, ...] = ()

    def steps(self) -> Iterator[BoostingStep]:
        """Every step with the training-time slopes, from staged margins."""
        for trees, margins in self.ensemble.staged(self.leaves):
            z = np.ascontiguousarray(margins.T)
            g, h = self.loss.derivatives(z, self.targets)
            yield BoostingStep(trees, z, g, h if self.rule.newton else np.ones_like(h))

    def local_leaves(self, tree: int) -> Indices:
        """The leaf of every training example counted within this tree, (n,)."""
        return np.asarray(self.leaves[:, tree] - self.ensemble.starts[tree])

    def leaf_sums(self, tree: int, per_example: Array) -> Array:
        """Weighted sums over the leaves of this tree of numbers (width, n): (leaves, width)."""
        leaf, count = self.local_leaves(tree), int(np.diff(self.ensemble.starts)[tree])
        return np.stack([np.bincount(leaf, self.weights * row, minlength=count) for row in per_example], axis=1)

    @cached_property
    def leaf_matrices(self) -> list[sparse.csr_matrix]:
        """Per tree, (leaves, n) with the weight of each example in its leaf: sums of many columns at once."""
        n = len(self.weights)
        made = []
        for tree, count in enumerate(np.diff(self.ensemble.starts).tolist()):
            leaf = self.local_leaves(tree)
            order = np.argsort(leaf, kind="stable")
            indptr = np.concatenate([[0], np.cumsum(np.bincount(leaf, minlength=count))])
            made.append(sparse.csr_matrix((self.weights[order], order, indptr), shape=(count, n)))
        return made

    @cached_property
    def leaf_totals(self) -> tuple[Array, Array]:
        """(G, H) of every leaf, each (leaves, width)."""
        g, h = np.zeros_like(self.ensemble.values), np.zeros_like(self.ensemble.values)
        for step in self.steps():
            for tree in step.trees:
                where, outputs = self.ensemble.leaves_of(tree), self.ensemble.outputs_of(tree)
                g[where] = self.leaf_sums(tree, step.gradient[outputs])
                h[where] = self.leaf_sums(tree, step.hessian[outputs])
        return g, h

    @cached_property
    def reproduced(self) -> Array:
        """Leaf values made again from the training set, (leaves, width): the library's where all is recorded."""
        g, h = self.leaf_totals
        return self.rule.values(g, h, slice(0, len(g)))

    @cached_property
    def mismatch(self) -> float:
        """The largest difference between made again and the library's, relative to the largest value of the tree."""
        if not self.ensemble.trees:
            return 0.0
        largest = np.maximum.reduceat(np.abs(self.ensemble.values).max(axis=1), self.ensemble.starts[:-1])
        # A tree that has nothing left to do holds rounding: small against the step that all examples could ask for.
        first = next(self.steps())
        possible = float((self.weights * np.abs(first.gradient)).sum() / (self.weights * first.hessian).sum())
        floor = 1e-3 * max(largest.max(), self.rule.learning_rate * possible)
        scale = np.maximum(largest, floor)[self.ensemble.tree_of]
        off = np.abs(self.reproduced - self.ensemble.values).max(axis=1)
        # No example that weighs anything may be in a leaf: what the library wrote there has no cause in the data.
        seen = self.ensemble.leaf_weights(self.leaves, self.weights) > 0
        return float((off / np.maximum(scale, 1e-300))[seen].max(initial=0.0))

    @property
    def exact(self) -> bool:
        """Whether leaf values are what the replay makes of the training set."""
        return self.loss.differentiable and self.mismatch <= SAME

    def require_exact(self, wanted_by: str) -> None:
        """Raise ValueError, with the reason and what still works, where leaf values cannot be made again."""
        if self.exact:
            return
        why = "; ".join(self.unrecorded) or (
            f"leaf values made again from the training set are off by {self.mismatch:.1g} of the largest"
        )
        if not self.loss.differentiable:
            why = f"leaf values of the {self.loss.name} are order statistics, not sums"
        raise ValueError(
            f"{wanted_by} works on leaf values as sums over training examples, and here they are not: {why}. "
            "TreeSim, TREX and BoostIn rank without them, LeaveOneOut trains again"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know."""
        if self.exact or not self.unrecorded:
            return ()
        return (
            f"Training kept no record of something: {'; '.join(self.unrecorded)}. Training-time gradients are "
            "taken at the margins of the whole trees.",
        )

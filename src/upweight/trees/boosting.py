"""Boosting: how the leaf values of a boosted ensemble follow from its training set.

The margins before every step are replayed from the leaf values, which gives the gradients that the step was fitted to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from upweight.core.weights import example_counts
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.ensemble import Indices, TreeEnsemble
from upweight.trees.joint_leaves import joint_sums

Array = NDArray[np.float64]
# Largest accepted difference of leaf values, relative to the largest of their tree: libraries sum in single precision.
VALUE_TOLERANCE = 1e-4
# Rounding of margins in single precision, in units of half a bit of each margin: at least, and for every boosting step.
MIN_ROUNDINGS, ROUNDINGS_PER_STEP = 8.0, 0.25
MIN_HESSIAN = 1e-12  # a leaf whose second derivatives sum to less than this holds no example


@dataclass(frozen=True, eq=False)
class LeafRule:
    """A leaf's value from the sums G and H over its examples: −learning_rate · clip(soft(G, l1) / (H + l2), max_step).

    soft(G, l1) is G moved towards 0 by l1, and 0 if |G| < l1.

    Attributes:
        learning_rate: the factor of every step.
        l2: (leaves,) added to H, leaf by leaf (LightGBM adds more below categorical splits). Infinite for a leaf that
            takes no step whatever its sums are, such as the only leaf of a tree that found no split.
        l1: subtracted from |G|.
        max_step: the largest step before the learning rate; 0 for no limit.
        newton: H sums second derivatives; otherwise H sums weights (CatBoost's "Gradient" leaves).
        is_joint: one step in all outputs of a leaf, with the full Hessian of the loss in place of its diagonal.
        min_hessian: a leaf whose H is not above it holds no example. Negative if second derivatives can be 0.
        is_per_mean_weight: `l2` is a multiple of the mean weight of the training examples (CatBoost), so that removals
            change it.
    """

    learning_rate: float
    l2: Array
    l1: float = 0.0
    max_step: float = 0.0
    newton: bool = True
    min_hessian: float = MIN_HESSIAN
    is_joint: bool = False
    is_per_mean_weight: bool = False

    def values(self, g: Array, h: Array, leaves: slice, l2_factors: Array | float = 1.0) -> Array:
        """Leaf values for sums g and h, both (leaves, …). A leaf without examples takes no step.

        `l2_factors` multiply the l2: one number, or one for each of the last axis.
        """
        denominator = h + self._l2_like(h, leaves) * l2_factors
        if self.l1:
            g = np.sign(g) * np.maximum(np.abs(g) - self.l1, 0.0)
        step = np.divide(
            -g, denominator, out=np.zeros_like(denominator), where=(denominator > MIN_HESSIAN) & (h > self.min_hessian)
        )
        if self.max_step:
            step = np.clip(step, -self.max_step, self.max_step)
        return self.learning_rate * step

    def joint_values(self, g: Array, h: Array, leaves: slice, l2_factors: Array) -> Array:
        """−learning_rate · (H + l2)⁻¹ G for g (leaves, removals, K) and h (leaves, removals, K, K)."""
        shifted = h + (self.l2[leaves, None] * l2_factors)[..., None, None] * np.eye(h.shape[-1])
        step = -self.learning_rate * np.linalg.solve(shifted, g[..., None])[..., 0]
        is_empty = np.trace(h, axis1=2, axis2=3) <= self.min_hessian
        return np.asarray(np.where(is_empty[..., None], 0.0, step))

    def value_change(self, value: Array, h: Array, dg: Array, dh: Array, leaves: slice | Indices) -> Array:
        """First-order change of leaf values when their sums change by dg and dh; leaves are the first axis of all."""
        return -(self.learning_rate * dg + value * dh) * self.inverse_denominator(value, h, leaves)

    def inverse_denominator(self, value: Array, h: Array, leaves: slice | Indices) -> Array:
        """1 / (H + l2), or 0 for a leaf that cannot change: it holds no example, or its value is clipped."""
        denominator = h + self._l2_like(h, leaves)
        fixed = (denominator <= MIN_HESSIAN) | (h <= self.min_hessian)
        if self.l1:
            fixed |= value == 0
        if self.max_step:
            fixed |= np.abs(value) >= self.learning_rate * self.max_step * (1 - 1e-12)
        return np.where(fixed, 0.0, 1.0 / np.where(fixed, 1.0, denominator))

    def _l2_like(self, h: Array, leaves: slice | Indices) -> Array:
        """The l2 of these leaves with as many axes as h."""
        return self.l2[leaves].reshape(-1, *[1] * (h.ndim - 1))


@dataclass(frozen=True, eq=False)
class BoostingStep:
    """One boosting step: its trees, and the training margins and derivatives before it, all (K, n)."""

    trees: range
    margins: Array
    gradient: Array
    hessian: Array


@dataclass(frozen=True, eq=False)
class Boosting:
    """A boosted ensemble and the examples that it was trained on.

    Attributes:
        leaves: (n, trees) the global number of every training example's leaf in every tree.
        targets: (K, n) the labels as the loss encodes them.
        weights: (n,) sample weights, times the weights of classes.
        example_weights: (n,) sample weights without the weights of classes; None if they are the same.
        base_weights: (n,) the weights that the base is fitted to; None if they are `weights`.
        base_is_fitted: the base is the best constant for the training set, so removals change it; else it is fixed.
        unrecorded: training settings whose effects no library records (subsampling, dropped trees, …), in words.
    """

    ensemble: TreeEnsemble
    loss: BoostingLoss
    rule: LeafRule
    leaves: Indices
    targets: Array
    weights: Array
    base_is_fitted: bool = False
    unrecorded: tuple[str, ...] = ()
    example_weights: Array | None = None
    base_weights: Array | None = None

    @property
    def counts(self) -> Array:
        """How many examples every row counts for, (n,)."""
        return example_counts(self.weights if self.example_weights is None else self.example_weights)

    def steps(self) -> Iterator[BoostingStep]:
        """Every step, with the gradients and second derivatives that it was fitted to."""
        for trees, margins in self.ensemble.staged(self.leaves):
            outputs_first = np.ascontiguousarray(margins.T)
            g, h = self.loss.derivatives(outputs_first, self.targets)
            yield BoostingStep(trees, outputs_first, g, h if self.rule.newton else np.ones_like(h))

    def local_leaves(self, tree: int) -> Indices:
        """The local number of every training example's leaf in this tree, (n,)."""
        return np.asarray(self.leaves[:, tree] - self.ensemble.starts[tree])

    def leaf_sums(self, tree: int, per_example: Array) -> Array:
        """Weighted sums of numbers (width, n) over the examples of every leaf of this tree: (leaves, width)."""
        leaf, count = self.local_leaves(tree), int(np.diff(self.ensemble.starts)[tree])
        return np.stack([np.bincount(leaf, self.weights * row, minlength=count) for row in per_example], axis=1)

    @cached_property
    def leaf_matrices(self) -> list[sparse.csr_matrix]:
        """One sparse matrix (leaves, n) per tree: each example's weight in its leaf, to sum many columns at once."""
        n = len(self.weights)
        matrices = []
        for tree, count in enumerate(np.diff(self.ensemble.starts).tolist()):
            leaf = self.local_leaves(tree)
            order = np.argsort(leaf, kind="stable")
            indptr = np.concatenate([[0], np.cumsum(np.bincount(leaf, minlength=count))])
            matrices.append(sparse.csr_matrix((self.weights[order], order, indptr), shape=(count, n)))
        return matrices

    @cached_property
    def leaf_totals(self) -> tuple[Array, Array]:
        """(G, H): the sums of gradients and of second derivatives in every leaf, each (leaves, width)."""
        g, h = np.zeros_like(self.ensemble.values), np.zeros_like(self.ensemble.values)
        for step in self.steps():
            for tree in step.trees:
                leaves, outputs = self.ensemble.leaves_of(tree), self.ensemble.outputs_of(tree)
                g[leaves] = self.leaf_sums(tree, step.gradient[outputs])
                h[leaves] = self.leaf_sums(tree, step.hessian[outputs])
        return g, h

    @cached_property
    def reproduced(self) -> Array:
        """Leaf values computed from the training set, (leaves, width): the model's, if training is fully recorded."""
        if self.rule.is_joint:
            values = np.zeros_like(self.ensemble.values)
            for step in self.steps():
                for tree in step.trees:
                    values[self.ensemble.leaves_of(tree)] = self.joint_values(tree, step.margins[..., None], [])[..., 0]
            return values
        g, h = self.leaf_totals
        return self.rule.values(g, h, slice(0, len(g)))

    def joint_values(self, tree: int, margins: Array, removed: Sequence[Indices]) -> Array:
        """A tree's values (leaves, K, removals) at margins (K, n, removals), if its outputs are solved for together."""
        g, h = joint_sums(self.loss, self.leaf_matrices[tree], margins, self.targets, removed)
        factors = self.l2_factors(removed) if removed else np.ones(1)
        return self.rule.joint_values(g, h, self.ensemble.leaves_of(tree), factors).swapaxes(1, 2)

    def l2_factors(self, removed: Sequence[Indices]) -> Array:
        """What the l2 of the leaves is multiplied by without each of these sets of examples, (removals,)."""
        if not self.rule.is_per_mean_weight:
            return np.ones(len(removed))
        total, rows, present = float(self.weights.sum()), len(self.weights), self.weights > 0
        means = [(total - self.weights[out].sum()) / max(rows - int(present[out].sum()), 1) for out in removed]
        return np.array(means) * (rows / total)

    @cached_property
    def mismatch(self) -> float:
        """The largest difference between reproduced and actual leaf values, relative to the largest of the tree."""
        if not self.ensemble.trees:
            return 0.0
        largest = np.maximum.reduceat(np.abs(self.ensemble.values).max(axis=1), self.ensemble.starts[:-1])
        # A tree with nothing left to fit holds rounding errors: compare those with the first step over all examples.
        first = next(self.steps())
        first_step = float((self.weights * np.abs(first.gradient)).sum() / (self.weights * first.hessian).sum())
        floor = 1e-3 * max(largest.max(), self.rule.learning_rate * first_step)
        scale = np.maximum(largest, floor)[self.ensemble.tree_of]
        difference = np.abs(self.reproduced - self.ensemble.values).max(axis=1)
        # A leaf with examples of weight 0 alone has a value that does not follow from the data.
        occupied = self.ensemble.leaf_weights(self.leaves, self.weights) > 0
        mismatch = float((difference / np.maximum(scale, 1e-300))[occupied].max(initial=0.0))
        if mismatch <= VALUE_TOLERANCE:
            return mismatch
        scale = np.maximum(scale, self._rounding() / VALUE_TOLERANCE)
        return float((difference / np.maximum(scale, 1e-300))[occupied].max(initial=0.0))

    def _rounding(self) -> Array:
        """How much rounding of margins and labels in single precision can change every leaf value, (leaves,).

        Late trees of a booster that fits its training set closely are fitted to differences of that size.
        """
        sums = np.zeros_like(self.ensemble.values)
        for step in self.steps():
            magnitude = np.abs(step.margins) * step.hessian + np.abs(self.targets)
            for tree in step.trees:
                sums[self.ensemble.leaves_of(tree)] = self.leaf_sums(tree, magnitude[self.ensemble.outputs_of(tree)])
        roundings = max(MIN_ROUNDINGS, ROUNDINGS_PER_STEP * (int(self.ensemble.steps.max(initial=0)) + 1))
        per_leaf = sums * self.rule.inverse_denominator(self.reproduced, self.leaf_totals[1], slice(0, len(sums)))
        return np.asarray(per_leaf.max(axis=1) * roundings * self.rule.learning_rate * 2.0**-24)

    @property
    def exact(self) -> bool:
        """Whether the training set reproduces the leaf values."""
        return self.loss.differentiable and self.mismatch <= VALUE_TOLERANCE

    @property
    def has_derivatives(self) -> bool:
        """Whether the derivatives of leaf values in the weights of examples are known."""
        return self.exact and not self.rule.is_joint

    def require_derivatives(self, wanted_by: str) -> None:
        """Raise ValueError if the derivatives of leaf values in the weights of examples are not known."""
        self.require_exact(wanted_by)
        if self.rule.is_joint:
            raise ValueError(
                f"{wanted_by} needs leaf values of one output each, and here those of several classes were solved for "
                "jointly. Use LeafRefit, which solves for them again, or train with leaf_estimation_method='Gradient'"
            )

    def require_exact(self, wanted_by: str) -> None:
        """Raise ValueError if the training set does not reproduce the leaf values, with the reason and what to use."""
        if self.exact:
            return
        reason = "; ".join(self.unrecorded) or (
            f"leaf values computed from the training set differ from the model's by {self.mismatch:.1g} of the largest"
        )
        if not self.loss.differentiable:
            reason = f"leaf values of the {self.loss.name} are order statistics, not sums"
        raise ValueError(
            f"{wanted_by} needs leaf values that are sums over training examples, and here they are not: {reason}. "
            "Use TreeSim, TREX or BoostIn, which rank examples without them, or LeaveOneOut, which retrains"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings for the reader of scores."""
        if self.exact or not self.unrecorded:
            return ()
        return (
            f"The model does not record all that training did: {'; '.join(self.unrecorded)}. Gradients during training "
            "are approximated by those at the margins of the final trees.",
        )

"""Forest: independent trees on resampled examples. Each leaf value is the mean of the targets in the leaf."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from upweight.trees.boosting import VALUE_TOLERANCE
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.ensemble import Indices, TreeEnsemble

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Forest:
    """An averaged ensemble and its training examples. Leaf values are means divided by the number of trees.

    Attributes:
        leaves: (n, trees) the global number of every training example's leaf in every tree.
        targets: (K, n) numbers, or 0 and 1 for each class.
        weights: (n, trees) sample weight times the number of times that each tree drew the example.
        bootstrap: whether each tree was grown on examples drawn with replacement.
        unrecorded: training settings whose effects the library does not record, in words.
    """

    ensemble: TreeEnsemble
    loss: BoostingLoss
    leaves: Indices
    targets: Array
    weights: Array
    bootstrap: bool
    unrecorded: tuple[str, ...] = ()

    @cached_property
    def leaf_weights(self) -> Array:
        """The total weight of the examples in every leaf, (leaves,)."""
        return self.ensemble.leaf_weights(self.leaves, self.weights)

    @cached_property
    def reproduced(self) -> Array:
        """Leaf values computed from the training set, (leaves, K)."""
        flat, size = self.leaves.ravel(), len(self.ensemble.values)
        sums = [np.bincount(flat, (self.weights * target[:, None]).ravel(), minlength=size) for target in self.targets]
        return np.stack(sums, axis=1) / np.maximum(self.leaf_weights, 1e-300)[:, None] / self.ensemble.trees

    @cached_property
    def mismatch(self) -> float:
        """The largest difference between reproduced and actual leaf values, relative to the largest value."""
        difference = np.abs(self.reproduced - self.ensemble.values)[self.leaf_weights > 0]
        return float(difference.max(initial=0.0) / max(np.abs(self.ensemble.values).max(), 1e-300))

    @property
    def exact(self) -> bool:
        """Whether the training set reproduces the leaf values."""
        return self.mismatch <= VALUE_TOLERANCE

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings for the reader of scores."""
        if self.exact:
            return ()
        return tuple(f"The model does not record all that training did: {effect}." for effect in self.unrecorded)

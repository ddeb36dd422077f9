"""Forest: trees grown side by side on resampled examples, each leaf the mean of what fell into it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from upweight.trees.boosting import SAME
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.ensemble import Indices, TreeEnsemble

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Forest:
    """An averaged ensemble and the examples it grew from; leaf values are means divided by the number of trees.

    Attributes:
        leaves: (n, trees) the leaf of every training example in every tree.
        targets: (K, n) amounts, or 0 and 1 for each class.
        weights: (n, trees) sample weight times how often each tree drew the example.
        bootstrap: trees were grown on examples drawn with replacement.
        unrecorded: what no library keeps, in words.
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
        """The weight in every leaf, (leaves,)."""
        return self.ensemble.leaf_weights(self.leaves, self.weights)

    @cached_property
    def reproduced(self) -> Array:
        """Leaf values made again from the training set, (leaves, K)."""
        at, size = self.leaves.ravel(), len(self.ensemble.values)
        sums = [np.bincount(at, (self.weights * target[:, None]).ravel(), minlength=size) for target in self.targets]
        return np.stack(sums, axis=1) / np.maximum(self.leaf_weights, 1e-300)[:, None] / self.ensemble.trees

    @cached_property
    def mismatch(self) -> float:
        """The largest difference between made again and the library's, relative to the largest value."""
        off = np.abs(self.reproduced - self.ensemble.values)[self.leaf_weights > 0]
        return float(off.max(initial=0.0) / max(np.abs(self.ensemble.values).max(), 1e-300))

    @property
    def exact(self) -> bool:
        """Whether leaf values are the means that the training set makes them."""
        return self.mismatch <= SAME

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know."""
        return () if self.exact else tuple(f"Training kept no record of something: {u}." for u in self.unrecorded)

"""TreeEnsemble: the leaf values of a sum of trees as arrays.

The leaf that an example falls into is always computed by the library that trained the trees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from upweight.core.forecast import counted

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class TreeEnsemble:
    """F(x) = base + Σ_t values[leaf of x in tree t], with K outputs. Splits are not stored.

    Splits are never evaluated here, because libraries differ in how they treat missing values, categories and ties.
    Each library can return the leaf that an example falls into.

    Leaves are numbered in two ways: a local number counts within one tree, a global number counts over all trees and is
    the leaf's row in `values`.

    Attributes:
        values: (leaves of all trees, width) what every leaf adds to one output (width 1) or to all outputs (width K).
        starts: (trees + 1,) the global number of each tree's first leaf, and the number of leaves at the end.
        steps: (trees,) the boosting step of each tree, ascending from 0. Trees of one step saw the same gradients.
        outputs: (trees,) the first output that each tree adds to.
        base: (K,) the outputs before the first tree.
    """

    values: Array
    starts: Indices
    steps: Indices
    outputs: Indices
    base: Array

    @property
    def trees(self) -> int:
        """The number of trees."""
        return len(self.steps)

    @property
    def width(self) -> int:
        """The number of outputs that a leaf adds to."""
        return int(self.values.shape[1])

    @cached_property
    def tree_of(self) -> Indices:
        """The tree of every leaf, (leaves,)."""
        return np.repeat(np.arange(self.trees), np.diff(self.starts))

    def leaves_of(self, tree: int) -> slice:
        """The global numbers of a tree's leaves."""
        return slice(int(self.starts[tree]), int(self.starts[tree + 1]))

    def outputs_of(self, tree: int) -> slice:
        """The outputs that a tree adds to."""
        first = int(self.outputs[tree])
        return slice(first, first + self.width)

    def by_step(self) -> Iterator[range]:
        """The trees of every boosting step."""
        edges = [*np.flatnonzero(np.diff(self.steps, prepend=-1)).tolist(), self.trees]
        return counted((range(first, last) for first, last in pairwise(edges)), len(edges) - 1)

    def global_leaves(self, local_leaves: NDArray[np.integer]) -> Indices:
        """Global leaf numbers from local ones, both (n, trees).

        Raises:
            ValueError: a local number is outside its tree, so the library's leaves and the values read from it differ.
        """
        if local_leaves.ndim != 2 or local_leaves.shape[1] != self.trees:
            raise ValueError(
                f"expected one leaf for each of {self.trees} trees, got an array of shape {local_leaves.shape}"
            )
        if (local_leaves < 0).any() or (local_leaves >= np.diff(self.starts)).any():
            raise ValueError(
                "expected leaf numbers that the model has, got an example in a leaf that it does not have: its trees "
                "were not read correctly; please report it with the version of the library"
            )
        # Column order: everything that reads leaves does so tree by tree.
        leaves: Indices = np.add(local_leaves, self.starts[:-1], order="F", dtype=np.intp)
        return leaves

    def margins(self, leaves: Indices) -> Array:
        """F of every example, (n, K)."""
        out = np.tile(self.base, (len(leaves), 1))
        for tree in range(self.trees):
            out[:, self.outputs_of(tree)] += self.values[leaves[:, tree]]
        return out

    def staged(self, leaves: Indices) -> Iterator[tuple[range, Array]]:
        """(trees of the step, F before the step (n, K)) for every step; one array is updated in place."""
        margins = np.tile(self.base, (len(leaves), 1))
        for trees in self.by_step():
            yield trees, margins
            for tree in trees:
                margins[:, self.outputs_of(tree)] += self.values[leaves[:, tree]]

    def membership(self, leaves: Indices, weights: Array | None = None) -> sparse.csr_matrix:
        """Sparse matrix (n, leaves): the weight of each example in each leaf that it falls into.

        `weights` is (n,) or (n, trees); None means 1.
        """
        n, trees = leaves.shape
        data = np.ones((n, trees)) if weights is None else np.broadcast_to(weights.reshape(n, -1), (n, trees))
        indptr = np.arange(0, n * trees + 1, trees)
        return sparse.csr_matrix((data.ravel(), leaves.ravel(), indptr), shape=(n, len(self.values)))

    def leaf_weights(self, leaves: Indices, weights: Array) -> Array:
        """The total weight of the examples in every leaf, (leaves,), for weights (n,) or (n, trees)."""
        weights = np.broadcast_to(weights.reshape(len(leaves), -1), leaves.shape)
        return np.bincount(leaves.ravel(), weights.ravel(), len(self.values)).astype(np.float64)


def ensemble_of(
    values: list[Array], steps: NDArray[np.integer], outputs: NDArray[np.integer], base: Array
) -> TreeEnsemble:
    """The ensemble with these leaf values of every tree, each (leaves,) or (leaves, width)."""
    per_tree = [np.asarray(v, dtype=np.float64).reshape(len(v), -1) for v in values]
    starts = np.concatenate([[0], np.cumsum([len(v) for v in per_tree])]).astype(np.intp)
    all_values = np.concatenate(per_tree) if per_tree else np.empty((0, 1))
    base = np.atleast_1d(np.asarray(base, dtype=np.float64))
    return TreeEnsemble(all_values, starts, np.asarray(steps, np.intp), np.asarray(outputs, np.intp), base)

"""TreeEnsemble: the leaves of a sum of trees as arrays; which leaf an example falls into is the library's own word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class TreeEnsemble:
    """F(x) = base + Σ_t values[leaf of x in tree t], with K outputs; splits are not kept.

    A split is never evaluated here: libraries differ in how they treat missing values, categories and ties, and each of
    them can say which leaf an example falls into.

    Attributes:
        values: (leaves of all trees, width) what every leaf adds: to one output (width 1), or to all (width K).
        starts: (trees + 1,) where each tree's leaves begin.
        steps: (trees,) the boosting step of each tree, ascending from 0; trees of one step saw the same gradients.
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
        """How many trees there are."""
        return len(self.steps)

    @property
    def width(self) -> int:
        """How many outputs a leaf adds to."""
        return int(self.values.shape[1])

    @cached_property
    def tree_of(self) -> Indices:
        """The tree of every leaf, (leaves,)."""
        return np.repeat(np.arange(self.trees), np.diff(self.starts))

    def leaves_of(self, tree: int) -> slice:
        """Where a tree's leaves stand."""
        return slice(int(self.starts[tree]), int(self.starts[tree + 1]))

    def outputs_of(self, tree: int) -> slice:
        """Which outputs a tree adds to."""
        first = int(self.outputs[tree])
        return slice(first, first + self.width)

    def by_step(self) -> Iterator[range]:
        """The trees of every step."""
        edges = [*np.flatnonzero(np.diff(self.steps, prepend=-1)).tolist(), self.trees]
        yield from (range(a, b) for a, b in pairwise(edges))

    def global_leaves(self, local_leaves: NDArray[np.integer]) -> Indices:
        """Leaf numbers within each tree (n, trees) as places among all leaves. Raises ValueError where there is none.

        What a library counts as leaves and what it holds of their values must be the same thing.
        """
        if local_leaves.ndim != 2 or local_leaves.shape[1] != self.trees:
            raise ValueError(
                f"expected one leaf for each of {self.trees} trees, got an array of shape {local_leaves.shape}"
            )
        if (local_leaves < 0).any() or (local_leaves >= np.diff(self.starts)).any():
            raise ValueError("an example falls into a leaf that the model does not have; it was read wrongly")
        leaves: Indices = np.add(local_leaves, self.starts[:-1], order="F", dtype=np.intp)  # all goes tree by tree
        return leaves

    def margins(self, leaves: Indices) -> Array:
        """F of every example, (n, K)."""
        out = np.tile(self.base, (len(leaves), 1))
        for tree in range(self.trees):
            out[:, self.outputs_of(tree)] += self.values[leaves[:, tree]]
        return out

    def staged(self, leaves: Indices) -> Iterator[tuple[range, Array]]:
        """(trees of the step, F before it (n, K)) for every step; the array is the same one, moved on."""
        margins = np.tile(self.base, (len(leaves), 1))
        for trees in self.by_step():
            yield trees, margins
            for tree in trees:
                margins[:, self.outputs_of(tree)] += self.values[leaves[:, tree]]

    def membership(self, leaves: Indices, weights: Array | None = None) -> sparse.csr_matrix:
        """(n, leaves) with a weight (1 where left out; (n,) or (n, trees)) for each leaf that an example is in."""
        n, trees = leaves.shape
        data = np.ones((n, trees)) if weights is None else np.broadcast_to(weights.reshape(n, -1), (n, trees))
        indptr = np.arange(0, n * trees + 1, trees)
        return sparse.csr_matrix((data.ravel(), leaves.ravel(), indptr), shape=(n, len(self.values)))

    def leaf_weights(self, leaves: Indices, weights: Array) -> Array:
        """The weight (n,) or (n, trees) of the examples in every leaf, (leaves,): ones count them."""
        each = np.broadcast_to(weights.reshape(len(leaves), -1), leaves.shape)
        return np.bincount(leaves.ravel(), each.ravel(), len(self.values)).astype(np.float64)


def ensemble_of(
    values: list[Array], steps: NDArray[np.integer], outputs: NDArray[np.integer], base: Array
) -> TreeEnsemble:
    """From the leaf values of every tree, each (leaves,) or (leaves, width)."""
    columns = [np.asarray(v, dtype=np.float64).reshape(len(v), -1) for v in values]
    starts = np.concatenate([[0], np.cumsum([len(v) for v in columns])]).astype(np.intp)
    together = np.concatenate(columns) if columns else np.empty((0, 1))
    base = np.atleast_1d(np.asarray(base, dtype=np.float64))
    return TreeEnsemble(together, starts, np.asarray(steps, np.intp), np.asarray(outputs, np.intp), base)

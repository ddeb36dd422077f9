"""Leaf values of a trained ensemble without some of its training examples, with every split where it was."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from upweight.trees.boosting import Boosting
from upweight.trees.ensemble import Indices, TreeEnsemble
from upweight.trees.fixed_structure import refit
from upweight.trees.forest import Forest

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LeavesWithout:
    """Leaf values on the remaining examples.

    Attributes:
        ensemble: with these values; the structure is that of the training with all examples.
        emptied: (leaves,) whether a leaf held examples and holds none now. A boosted leaf then takes no step, and a
            leaf of a forest has the mean of its tree.
    """

    ensemble: TreeEnsemble
    emptied: NDArray[np.bool_]


def leaf_values_without(grown: Boosting | Forest, remaining: NDArray[np.bool_]) -> LeavesWithout:
    """The leaf values on the examples where `remaining` (n,) is true.

    Raises ValueError if the leaf values of a boosted ensemble do not follow from its training set.
    """
    weights = grown.weights.reshape(len(remaining), -1)
    before = grown.ensemble.leaf_weights(grown.leaves, weights)
    after = grown.ensemble.leaf_weights(grown.leaves[remaining], weights[remaining])
    emptied = (before > 0) & (after <= 0)
    if isinstance(grown, Forest):
        return LeavesWithout(_means(grown, remaining), emptied)
    grown.require_exact("forget")
    change, base = refit(grown, [np.flatnonzero(~remaining)])
    ensemble = grown.ensemble
    return LeavesWithout(
        replace(ensemble, values=ensemble.values + change[..., 0], base=ensemble.base + base[:, 0]), emptied
    )


def _means(grown: Forest, remaining: NDArray[np.bool_]) -> TreeEnsemble:
    """A forest whose leaves hold the means of their remaining examples; leaves without one, the mean of their tree."""
    ensemble, draws = grown.ensemble, grown.weights * remaining[:, None]
    rest = replace(grown, weights=draws)
    per_tree = grown.targets @ draws / np.maximum(draws.sum(axis=0), 1e-300) / ensemble.trees  # (K, trees)
    is_empty = rest.leaf_weights <= 0
    values = np.where(is_empty[:, None], per_tree.T[ensemble.tree_of], rest.reproduced)
    return replace(ensemble, values=values)


def same_partitions(first: Indices, second: Indices) -> NDArray[np.bool_]:
    """Whether each tree puts the same examples together in both ensembles, (trees,).

    `first` and `second` (n, trees) are the leaves of the same examples. Trees that only one ensemble has count as
    different.
    """
    common, most = sorted((first.shape[1], second.shape[1]))
    same = np.zeros(most, dtype=bool)
    for tree in range(common):
        pairs = np.stack([first[:, tree], second[:, tree]])
        counts = [len(np.unique(part, axis=-1).T) for part in (pairs, pairs[:1], pairs[1:])]
        same[tree] = counts[0] == counts[1] == counts[2]
    return same

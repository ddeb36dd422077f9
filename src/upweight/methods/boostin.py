"""BoostIn: what an example's gradients added to the leaves that it shares with the query, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import stored_array
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import blocks
from upweight.core.examples import Examples
from upweight.core.scores import Unit
from upweight.core.tree_based import Boosted
from upweight.trees.boosting import Boosting

Array = NDArray[np.float64]
TRAIN_BLOCK = 4096  # training examples whose scores are held in memory at once


@dataclass(frozen=True, kw_only=True)
class BoostIn(Attributor):
    """Brophy, Hammoudeh & Lowd (2023): Σ_t ∂m_q/∂F_t · ∂(value of the leaf of i in tree t)/∂w_i over shared leaves.

    The gradient of the measurement is taken at the query's margins before each step, as TracIn does along a trajectory
    of parameters. The derivative of the leaf value −η Σg/(Σh + λ) is taken with the margins held fixed. RANK: gradients
    from early in training do not give the size of the effect on the final measurement.
    """

    summary = "What an example's gradients added to the leaves that it shares with the query, step by step"
    paper = "Brophy, Hammoudeh & Lowd (2023)"
    cost = "one pass over the trees, and a sparse product with trees × queries numbers per training example"
    needs = (Boosted,)

    @property
    def promises(self) -> Promises:
        """No floor against retraining without single examples."""
        return Promises(
            no_floor="retraining without an example also moves splits, which can change more than the leaf values do"
        )

    def fit(self, model: Any, train: Examples) -> FittedBoostIn:
        """Compute what every example adds to the values of its leaves."""
        return FittedBoostIn(self, model, train, _leaf_shares(model.grown(train)))

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedBoostIn:
        """Take the shares from the saved state."""
        ensemble = model.trees()
        shares = stored_array(state, "shares", (len(train), ensemble.trees, ensemble.width))
        return FittedBoostIn(self, model, train, shares)


class FittedBoostIn(Fitted[BoostIn, Boosted]):
    """BoostIn, ready to answer."""

    def __init__(self, recipe: BoostIn, model: Any, train: Examples, shares: Array) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.shares = shares  # (n, trees, width), ∂ leaf value / ∂ log weight

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """One sparse product per block: gradients of the queries in their leaves × shares of the examples in theirs."""
        ensemble, train_leaves = self.model.trees(), self.model.leaves(self.train)
        slopes = self._staged_slopes(queries)
        query_leaves = self.model.leaves(queries)
        per_query = [ensemble.membership(query_leaves, slopes[..., w]).T.toarray() for w in range(ensemble.width)]
        for block in blocks(len(self.train), TRAIN_BLOCK):
            per_example = [
                ensemble.membership(train_leaves[block], self.shares[block, :, w]) for w in range(ensemble.width)
            ]
            yield block, sum(left @ right for left, right in zip(per_example, per_query, strict=True)).T

    def self_values(self) -> Array:
        """The score of each example on itself; it shares all leaves with itself."""
        return np.asarray(np.einsum("itw,itw->i", self.shares, self._staged_slopes(self.train)))

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The shares."""
        return {"shares": self.shares}, {}

    def _staged_slopes(self, queries: Examples) -> Array:
        """∂measurement/∂(output of tree t) at the margins before tree t, for every tree: (m, trees, width)."""
        ensemble = self.model.trees()
        staged = np.empty((len(queries), ensemble.trees, ensemble.width))
        for trees, margins in ensemble.staged(self.model.leaves(queries)):
            slopes = self.model.measure_slopes(queries, margins)
            for tree in trees:
                staged[:, tree] = slopes[:, ensemble.outputs_of(tree)]
        return staged


def _leaf_shares(grown: Boosting) -> Array:
    """∂(value of the leaf of i in tree t)/∂ log w_i with margins held fixed, (n, trees, width)."""
    ensemble, all_leaves, weights = grown.ensemble, grown.leaves, grown.weights[:, None]
    shares = np.empty((ensemble.width, ensemble.trees, len(all_leaves))).T  # contiguous per tree, as it is written
    _, below = grown.leaf_totals
    for step in grown.steps():
        for tree in step.trees:
            leaves, outputs = all_leaves[:, tree], ensemble.outputs_of(tree)
            g, h = (weights * slopes[outputs].T for slopes in (step.gradient, step.hessian))
            shares[:, tree] = grown.rule.value_change(ensemble.values[leaves], below[leaves], g, h, leaves)
    return shares

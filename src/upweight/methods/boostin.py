"""BoostIn: what an example's gradients added to the leaves that the query fell into too, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.examples import Examples
from upweight.core.model import Boosted
from upweight.core.scores import Unit
from upweight.trees.boosting import Boosting

Array = NDArray[np.float64]
BLOCK = 4096  # training examples whose scores are held at a time when they are streamed


@dataclass(frozen=True, kw_only=True)
class BoostIn(Attributor):
    """Brophy, Hammoudeh & Lowd (2023): Σ_t ∂m_q/∂F_t · ∂(value of the leaf of i in tree t)/∂w_i where both share it.

    The gradient of the measurement is taken at the query's margins before each step, as TracIn does along a trajectory
    of parameters; the leaf's derivative is that of −η Σg/(Σh + λ) with margins held. RANK: gradients early in
    training say nothing of the final measurement's size.
    """

    summary = "What an example's gradients added to the leaves that the query fell into too, step by step"
    paper = "Brophy, Hammoudeh & Lowd (2023)"
    cost = "one pass over the trees, and a sparse product with trees × queries numbers per training example"
    needs = (Boosted,)

    @property
    def promises(self) -> Promises:
        """Nothing about single retrainings."""
        return Promises(no_floor="without an example splits move too, which can do more than what it added to leaves")

    def fit(self, model: Any, train: Examples) -> FittedBoostIn:
        """Every example's share in its leaves."""
        return FittedBoostIn(self, model, train, _shares(model.grown(train)))

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedBoostIn:
        """The shares from disk."""
        return FittedBoostIn(self, model, train, state["shares"])


class FittedBoostIn(Fitted[BoostIn, Boosted]):
    """BoostIn, ready to answer."""

    def __init__(self, recipe: BoostIn, model: Any, train: Examples, shares: Array) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.shares = shares  # (n, trees, width), ∂ leaf value / ∂ log weight

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """One sparse product per block: the query's gradients in its leaves × the examples' shares in theirs."""
        ensemble, places = self.model.trees(), self.model.leaves(self.train)
        slopes = self._slopes(queries)
        at = self.model.leaves(queries)
        asked = [ensemble.membership(at, slopes[..., w]).T.toarray() for w in range(ensemble.width)]
        for start in range(0, len(self.train), BLOCK):
            where = slice(start, min(start + BLOCK, len(self.train)))
            rows = [ensemble.membership(places[where], self.shares[where, :, w]) for w in range(ensemble.width)]
            yield where, sum(row @ column for row, column in zip(rows, asked, strict=True)).T

    def self_values(self) -> Array:
        """Each example shares every leaf with itself."""
        return np.asarray(np.einsum("itw,itw->i", self.shares, self._slopes(self.train)))

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The shares."""
        return {"shares": self.shares}, {}

    def _slopes(self, queries: Examples) -> Array:
        """∂measurement/∂ the output of each tree at the margins before it, (m, trees, width)."""
        ensemble, at = self.model.trees(), self.model.leaves(queries)
        out = np.empty((len(queries), ensemble.trees, ensemble.width))
        for trees, margins in ensemble.staged(at):
            slopes = self.model.measure_slopes(queries, margins)
            for tree in trees:
                out[:, tree] = slopes[:, ensemble.outputs_of(tree)]
        return out


def _shares(grown: Boosting) -> Array:
    ensemble, places, weights = grown.ensemble, grown.leaves, grown.weights[:, None]
    out = np.empty((ensemble.width, ensemble.trees, len(places))).T  # written tree by tree
    _, below = grown.leaf_totals
    for step in grown.steps():
        for tree in step.trees:
            at, outputs = places[:, tree], ensemble.outputs_of(tree)
            g, h = (weights * slopes[outputs].T for slopes in (step.gradient, step.hessian))
            out[:, tree] = grown.rule.value_change(ensemble.values[at], below[at], g, h, at)
    return out

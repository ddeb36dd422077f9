"""Leaf refit: every leaf value found again without the example, splits held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.examples import Examples, Id
from upweight.core.model import TreeBased, require
from upweight.core.processes import each
from upweight.core.scores import Scores, Unit
from upweight.core.weights import require_part
from upweight.trees.boosting import Boosting
from upweight.trees.fixed import blocks, refit, shifted

Array = NDArray[np.float64]
BLOCK = 256  # removals whose margins are held at a time for the queries


@dataclass(frozen=True, kw_only=True)
class LeafRefit(Attributor):
    """Sharchilev et al. (2018): boosting run through again without the example, every split where it was.

    Args:
        processes: blocks of removals at a time, each in its own process; 1 stays in this one.

    Removals go in blocks: gradients of all examples under all removals of a block are summed leaf by leaf in one sparse
    product per tree. EFFECT: exact for the structure held (1e-6 against the libraries' own refits); true retraining
    moves splits too, and then the size is right on average only.

    Cost: examples² × trees gradients; leaves × examples numbers in memory.
    """

    processes: int = 1

    @property
    def promises(self) -> Promises:
        """Against true retraining, whose splits move: the sign and a wide band, no more. Splits held it is exact."""
        return Promises(correlation=0.0, slope=(0.2, 4.0))

    def fit(self, model: Any, train: Examples) -> FittedLeafRefit:
        """Boost again without every example."""
        grown = _exact(model, train)
        parts = list(blocks(grown, len(train)))
        found = [both for _, both in sorted(each(_without, grown, parts, self.processes), key=lambda done: done[0])]
        return FittedLeafRefit(
            self, model, train, *(np.concatenate(both, axis=-1) for both in zip(*found, strict=True))
        )

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedLeafRefit:
        """The leaf values from disk."""
        _exact(model, train)
        return FittedLeafRefit(self, model, train, state["change"], state["base"])


class FittedLeafRefit(Fitted):
    """Leaf values without every example, ready to be applied to queries."""

    model: TreeBased

    def __init__(self, recipe: LeafRefit, model: Any, train: Examples, change: Array, base: Array) -> None:
        super().__init__(recipe, model, train, Unit.EFFECT)
        self.change, self.base = change, base  # without minus with: (leaves, width, n) and (K, n)

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """The measurement at the margins with all examples minus at those without one."""
        for start in range(0, len(self.train), BLOCK):
            where = slice(start, min(start + BLOCK, len(self.train)))
            yield where, self._effects(queries, self.change[..., where], self.base[:, where])

    def self_values(self) -> Array:
        """Each example's own measurement."""
        return np.array(
            [
                self._effects(self.train.take([i]), self.change[..., [i]], self.base[:, [i]])[0, 0]
                for i in range(len(self.train))
            ]
        )

    def remove(self, groups: Mapping[str, Sequence[Id]], queries: Examples) -> Scores:
        """The effect of whole groups, name → train ids: one column each, boosting run through again without it."""
        if not groups:
            raise ValueError("expected at least one group, e.g. {'children': [17, 42]}")
        removed = [np.unique(self.train.positions(ids)) for ids in groups.values()]
        for name, gone in zip(groups, removed, strict=True):
            require_part(self.train, name, gone)
        grown = _exact(self.model, self.train)
        values = [self._effects(queries, *refit(grown, removed[part])) for part in blocks(grown, len(removed))]
        measured = self.model.measure(queries)
        return self.scores(
            np.hstack(values), queries.ids, np.array(list(groups)), measured, self.model.predict(queries)
        )

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """What is held."""
        held = "Splits are held: what an example did to the structure of the trees is not in these scores."
        return {"fixed_structure": True, "warnings": [*getattr(self.model, "notes", ()), held]}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The leaf values."""
        return {"change": self.change, "base": self.base}, {}

    def _effects(self, queries: Examples, change: Array, base: Array) -> Array:
        """(m, columns): the measurement minus what it is when leaves and base move so."""
        ensemble, at = self.model.trees(), self.model.leaves(queries)
        margins = ensemble.margins(at)
        moved = shifted(ensemble, at, change, base)
        after = [self.model.measure_margins(queries, margins + moved[..., c]) for c in range(moved.shape[2])]
        return self.model.measure_margins(queries, margins)[:, None] - np.stack(after, axis=1)


def _without(grown: Boosting, part: slice) -> tuple[Array, Array]:
    """Leaf values and base without each of these examples."""
    return refit(grown, [np.array([i]) for i in range(part.start, part.stop)])


def _exact(model: Any, train: Examples) -> Boosting:
    require(model, [TreeBased], "LeafRefit", train)
    grown = model.grown(train)
    if not isinstance(grown, Boosting):
        raise TypeError("LeafRefit follows boosting steps, and a forest has none; ForestWeights is made for forests")
    grown.require_exact("LeafRefit")
    return grown

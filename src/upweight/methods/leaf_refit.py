"""Leaf refit: every leaf value found again without the example, splits held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts
from upweight.core.attributor import Attributor, Promises
from upweight.core.examples import Examples
from upweight.core.group_removal import GroupEffects, GroupRemoval
from upweight.core.model import Boosted
from upweight.core.scores import Unit
from upweight.retraining.process_pool import run_in_processes
from upweight.trees.boosting import Boosting
from upweight.trees.fixed_structure import margin_blocks, margin_changes, refit

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
    """

    summary = "Every leaf value found again without the example, splits held"
    paper = "Sharchilev et al. (2018)"
    cost = "examples² × trees gradients; leaves × examples numbers in memory"
    unit = Unit.EFFECT
    needs = (Boosted,)

    processes: int = 1

    @property
    def promises(self) -> Promises:
        """Nothing about single retrainings, whose splits move; with splits held it is exact."""
        return Promises(no_floor="without an example splits move too, which can do more than the leaf values")

    def fit(self, model: Any, train: Examples) -> FittedLeafRefit:
        """Boost again without every example."""
        grown = _exact(model, train)
        parts = list(margin_blocks(grown, len(train)))
        found = [
            both
            for _, both in sorted(run_in_processes(_without, grown, parts, self.processes), key=lambda done: done[0])
        ]
        return FittedLeafRefit(
            self, model, train, *(np.concatenate(both, axis=-1) for both in zip(*found, strict=True))
        )

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedLeafRefit:
        """The leaf values from disk."""
        _exact(model, train)
        return FittedLeafRefit(self, model, train, state["change"], state["base"])


class FittedLeafRefit(GroupRemoval[LeafRefit, Boosted]):
    """Leaf values without every example, ready to be applied to queries."""

    forms = ("refit",)

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

    def removed(self, member: NDArray[np.bool_], queries: Examples, form: str) -> GroupEffects:
        """Boosting run through again without each group."""
        grown, gone = _exact(self.model, self.train), [np.flatnonzero(row) for row in member]
        values = [self._effects(queries, *refit(grown, gone[part])) for part in margin_blocks(grown, len(gone))]
        return np.hstack(values), AnswerFacts()

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """What is held."""
        held = "Splits are held: what an example did to the structure of the trees is not in these scores."
        return {"fixed_structure": True, "warnings": [*self.model.notes, held]}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The leaf values."""
        return {"change": self.change, "base": self.base}, {}

    def _effects(self, queries: Examples, change: Array, base: Array) -> Array:
        """(m, columns): the measurement minus what it is when leaves and base move so."""
        ensemble, at = self.model.trees(), self.model.leaves(queries)
        margins = ensemble.margins(at)
        moved = margin_changes(ensemble, at, change, base)
        after = [self.model.measure_margins(queries, margins + moved[..., c]) for c in range(moved.shape[2])]
        return self.model.measure_margins(queries, margins)[:, None] - np.stack(after, axis=1)


def _without(grown: Boosting, part: slice) -> tuple[Array, Array]:
    """Leaf values and base without each of these examples."""
    return refit(grown, [np.array([i]) for i in range(part.start, part.stop)])


def _exact(model: Any, train: Examples) -> Boosting:
    grown: Boosting = model.grown(train)
    grown.require_exact("LeafRefit")
    return grown

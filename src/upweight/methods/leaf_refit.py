"""Leaf refit: all leaf values computed again without the example, with splits held fixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts
from upweight.core.archive import stored_array
from upweight.core.attributor import Attributor, Promises
from upweight.core.blocks import blocks
from upweight.core.examples import Examples
from upweight.core.forecast import counted, expect_results
from upweight.core.group_removal import GroupEffects, GroupRemoval
from upweight.core.scores import Unit
from upweight.core.tree_based import Boosted
from upweight.engines.process_pool import run_in_processes
from upweight.methods.parts.fixed_structure import fixed_structure_facts
from upweight.trees.boosting import Boosting
from upweight.trees.fixed_structure import margin_blocks, margin_changes, refit

Array = NDArray[np.float64]
REMOVAL_BLOCK = 256  # removals whose margins of the queries are held in memory at once


@dataclass(frozen=True, kw_only=True)
class LeafRefit(Attributor):
    """Sharchilev et al. (2018): boosting is replayed without the example, with every split held fixed.

    Args:
        processes: how many blocks of removals run at once, each in a separate process; 1 stays in this process.

    Removals go in blocks: gradients of all examples under all removals of a block are summed leaf by leaf in one sparse
    product per tree. EFFECT: exact for the fixed structure (1e-6 against the libraries' own refits). Retraining also
    moves splits; compared with it, the size is right on average only.
    """

    summary = "All leaf values computed again without the example, with splits held fixed"
    paper = "Sharchilev et al. (2018)"
    cost = "examples² × trees gradients; leaves × examples numbers in memory"
    unit = Unit.EFFECT
    needs = (Boosted,)

    processes: int = 1

    @property
    def promises(self) -> Promises:
        """No floor against retraining, which also moves splits; with splits held fixed it is exact."""
        return Promises(
            no_floor="retraining without an example also moves splits, which can change more than the leaf values do"
        )

    def fit(self, model: Any, train: Examples) -> FittedLeafRefit:
        """Replay boosting without each example."""
        grown = _exact(model, train)
        removals = list(margin_blocks(grown, len(train)))
        expect_results(8.0 * grown.ensemble.values.size * len(train))
        finished = run_in_processes(_without, grown, removals, self.processes)  # (position of the block, its changes)
        in_order = sorted(counted(finished, len(removals)), key=lambda done: done[0])
        changes = [change for _, change in in_order]
        change, base = (np.concatenate(parts, axis=-1) for parts in zip(*changes, strict=True))
        return FittedLeafRefit(self, model, train, change, base)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedLeafRefit:
        """Take the leaf values from the saved state."""
        ensemble = _exact(model, train).ensemble
        change = stored_array(state, "change", (*ensemble.values.shape, len(train)))
        base = stored_array(state, "base", (len(ensemble.base), len(train)))
        return FittedLeafRefit(self, model, train, change, base)


class FittedLeafRefit(GroupRemoval[LeafRefit, Boosted]):
    """Changes of leaf values without each example, ready to be applied to queries.

    Attributes:
        change: leaf values without the example minus with it, (leaves, width, n).
        base: the same for the base margin, (K, n).
    """

    forms = ("refit",)

    def __init__(self, recipe: LeafRefit, model: Any, train: Examples, change: Array, base: Array) -> None:
        super().__init__(recipe, model, train, Unit.EFFECT)
        self.change, self.base = change, base

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """The measurement at the margins with all examples minus the measurement at the margins without one."""
        for block in blocks(len(self.train), REMOVAL_BLOCK):
            yield block, self._effects(queries, self.change[..., block], self.base[:, block])

    def self_values(self) -> Array:
        """The effect of each training example on its own measurement."""
        return np.array(
            [
                self._effects(self.train.take([i]), self.change[..., [i]], self.base[:, [i]])[0, 0]
                for i in counted(range(len(self.train)), len(self.train))
            ]
        )

    def removed(self, membership: NDArray[np.bool_], queries: Examples, form: str) -> GroupEffects:
        """Effects of groups (groups, n), by replaying boosting without each of them."""
        grown, removals = _exact(self.model, self.train), [np.flatnonzero(row) for row in membership]
        effects = [
            self._effects(queries, *refit(grown, removals[block])) for block in margin_blocks(grown, len(removals))
        ]
        return np.hstack(effects), AnswerFacts()

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """A warning that splits are held fixed, and the notes of the model."""
        return fixed_structure_facts(self.model.notes)

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The changes of leaf values and base."""
        return {"change": self.change, "base": self.base}, {}

    def _effects(self, queries: Examples, change: Array, base: Array) -> Array:
        """The measurement minus the measurement after these changes of leaf values and base, (m, columns)."""
        ensemble, leaves = self.model.trees(), self.model.leaves(queries)
        margins = ensemble.margins(leaves)
        changes = margin_changes(ensemble, leaves, change, base)
        after = [self.model.measure_margins(queries, margins + changes[..., c]) for c in range(changes.shape[2])]
        return self.model.measure_margins(queries, margins)[:, None] - np.stack(after, axis=1)


def _without(grown: Boosting, block: slice) -> tuple[Array, Array]:
    """Changes of leaf values and base without each example of the block."""
    return refit(grown, [np.array([i]) for i in range(block.start, block.stop)])


def _exact(model: Any, train: Examples) -> Boosting:
    """The recorded boosting. Raises ValueError if leaf values do not follow from it exactly."""
    grown: Boosting = model.grown(train)
    grown.require_exact("LeafRefit")
    return grown

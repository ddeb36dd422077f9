"""Leave-one-out of models that their training examples determine in closed form: exact, and without training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts, Blocks
from upweight.core.attributor import Attributor
from upweight.core.blocks import blocks
from upweight.core.exact_removals import ExactRemovals
from upweight.core.examples import Examples
from upweight.core.group_removal import GroupEffects, GroupRemoval
from upweight.core.scores import Unit
from upweight.core.weights import weighted_positions
from upweight.methods.parts.refused_removals import refusal_warnings

Array = NDArray[np.float64]
MAX_MEASUREMENTS = 250_000  # queries × training examples that are measured at once
OWN_BLOCK = 64  # training examples that are measured at once, each without itself


class FittedExactRemoval(GroupRemoval[Attributor, ExactRemovals]):
    """The effects of removals, by recomputing the model under other example weights.

    Attributes:
        refused: position of an example without which the model cannot be trained → why.
    """

    forms = ("exact",)

    def __init__(self, recipe: Attributor, model: ExactRemovals, train: Examples) -> None:
        super().__init__(recipe, model, train, Unit.EFFECT)
        self.refused = dict(model.undefined_removals(train))
        if len(self.refused) == len(weighted_positions(train)):
            reason = next(iter(self.refused.values()))
            raise ValueError(f"the model cannot be trained without any of the examples: {reason}")
        self._self_facts = AnswerFacts()

    def blocks(self, queries: Examples) -> Blocks:
        """The measurement with all examples minus the measurement without each one."""
        with_all, undefined = self.model.measure(queries)[:, None], np.zeros(len(self.train), dtype=bool)
        for block in blocks(len(self.train), max(1, MAX_MEASUREMENTS // len(queries))):
            effects = with_all - self._measured_without(block, queries, with_all)
            undefined[block] = np.isnan(effects).any(axis=0)
            yield block, effects
        return self._facts(queries, undefined)

    def self_values(self) -> Array:
        """The measurement of each training example with it minus without it (memorisation, Feldman 2020)."""
        with_all, without = self.model.measure(self.train), np.empty(len(self.train))
        for block in blocks(len(self.train), OWN_BLOCK):
            examples = self.train.take(np.arange(block.start, block.stop))
            without[block] = self._measured_without(block, examples, with_all[block, None]).diagonal()
        values = np.asarray(with_all - without)
        self._self_facts = AnswerFacts(diagnostics=self._undefined(np.isnan(values)))
        return values

    def self_facts(self) -> AnswerFacts:
        """The undefined examples of the self-influence that was computed last."""
        return self._self_facts

    @property
    def may_be_undefined(self) -> bool:
        """Some queries may have no prediction without an example."""
        return True

    def _measured_without(self, block: slice, queries: Examples, with_all: Array) -> Array:
        """The measurements without each example of the block, (m, block); NaN where the model cannot be trained."""
        without = np.repeat(with_all, block.stop - block.start, axis=1)  # as without an example of weight 0
        positions = np.arange(block.start, block.stop)
        refused = np.isin(positions, list(self.refused))
        without[:, refused] = np.nan
        removed = np.isin(positions, self._counted) & ~refused
        if removed.any():
            without[:, removed] = self.model.measure_without_each(self.train, positions[removed], queries)
        return without

    @cached_property
    def _counted(self) -> NDArray[np.intp]:
        return weighted_positions(self.train)

    def removed(self, membership: NDArray[np.bool_], queries: Examples, form: str) -> GroupEffects:
        """The effects of whole groups, by recomputing the model without each."""
        effects = self.model.measure(queries)[:, None] - self.model.measure_without(self.train, membership, queries)
        return effects, self._facts(queries, np.asarray(membership[np.isnan(effects).any(axis=0)].any(axis=0)))

    def _facts(self, queries: Examples, undefined: NDArray[np.bool_]) -> AnswerFacts:
        """Sentences of the model about the answer, and the examples (n,) without which a query has no score."""
        doubts = list(self.model.doubts(self.train, queries))
        warnings = {"warnings": doubts} if doubts else {}
        return AnswerFacts(diagnostics={**warnings, **self._undefined(undefined)})

    def _undefined(self, undefined: NDArray[np.bool_]) -> dict[str, Any]:
        """The examples without a score for some query, for diagnostics; nothing if those of the fit are all."""
        more = set(np.flatnonzero(undefined).tolist()) - set(self.refused)
        return {"undefined": self.train.ids[[*self.refused, *sorted(more)]].tolist()} if more else {}

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """Notes that nothing was trained, and which examples the model cannot be trained without."""
        undefined = {"undefined": self.train.ids[list(self.refused)].tolist()} if self.refused else {}
        warnings = [*self.model.notes, *refusal_warnings(self.train, self.refused)]
        sentences = list(self.model.described())
        model = {"model": sentences} if sentences else {}
        return {**model, "trainings": 0, **undefined, "warnings": warnings}

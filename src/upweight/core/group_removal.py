"""Fitted methods that estimate the removal of whole groups better than sums of scores do."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts
from upweight.core.attributor import Fitted, ModelT, RecipeT
from upweight.core.departure import with_departure
from upweight.core.examples import Examples, Id
from upweight.core.forecast import announced
from upweight.core.library_calls import library_call
from upweight.core.scores import Scores, Unit
from upweight.core.weights import require_part

Array = NDArray[np.float64]
GroupEffects = tuple[Array, AnswerFacts]


class GroupRemoval(Fitted[RecipeT, ModelT]):
    """A fitted method that can estimate the effect of removing whole groups.

    Class variables:
        forms: names of its estimates, the best one first.
    """

    forms: ClassVar[tuple[str, ...]]

    def remove(
        self, groups: Mapping[str, Sequence[Id]], queries: Examples | None = None, form: str | None = None
    ) -> Scores:
        """The effect of whole groups: one column each, the measurement with the group minus without it.

        Args:
            groups: name → train ids.
            queries: what to measure; None for a measurement of the parameters alone.
            form: one of `forms`; None for the first.

        Raises:
            ValueError: there is no group, a group holds no or all examples, or the form is unknown.
            KeyError: the training set does not have an id.
        """
        return self.answer_groups(groups, queries, form, self.removed)

    @abstractmethod
    def removed(self, membership: NDArray[np.bool_], queries: Examples, form: str) -> GroupEffects:
        """(effects (m, groups), facts of this answer) for groups given as a mask `membership` (groups, n)."""

    def lacks_removal(self) -> str | None:
        """Why this fit cannot estimate removals, as a clause for a message; None if it can."""
        return None

    @library_call
    def answer_groups(
        self,
        groups: Mapping[str, Sequence[Id]],
        queries: Examples | None,
        form: str | None,
        removed: Callable[[NDArray[np.bool_], Examples, str], GroupEffects],
    ) -> Scores:
        """Check groups, queries and form, call `removed`, and return its effects as `Scores`."""
        queries = self.require_queries(queries)
        self.require_unchanged()
        form = self.forms[0] if form is None else form
        if form not in self.forms:
            raise ValueError(f"expected form to be one of {', '.join(self.forms)}, got {form!r}")
        membership = self._members(groups)
        departure = self.departure(queries)
        measured = self.original_model.measure(queries)
        with announced(f"{type(self.recipe).__name__}, removal of {len(groups):,} groups", None):
            values, facts = removed(membership, queries, form)
        names = np.array(list(groups))
        predictions = self.original_model.predict(queries) if departure is None else departure.own
        scores = self.scores(values, queries.ids, names, measured, predictions, facts)
        return with_departure(scores, departure)

    def _members(self, groups: Mapping[str, Sequence[Id]]) -> NDArray[np.bool_]:
        """Mask of the members of each group, (groups, n)."""
        if not groups:
            raise ValueError("expected at least one group, e.g. {'children': [17, 42]}")
        membership = np.zeros((len(groups), len(self.train)), dtype=bool)
        for row, (name, ids) in zip(membership, groups.items(), strict=True):
            row[self.train.positions(ids)] = True
            require_part(self.train, name, np.flatnonzero(row))
        return membership


def group_effects(
    fitted: Fitted[Any, Any], groups: Mapping[str, Sequence[Id]], queries: Examples
) -> tuple[Array, Unit, Mapping[str, Any]]:
    """The effect of each whole group on each query, by the best means that the fit has.

    A fit that can follow group removals does so; any other fit sums the scores of the group's examples.

    Returns:
        (effects (m, groups), their unit, the diagnostics of the answer).
    """
    if isinstance(fitted, GroupRemoval) and fitted.lacks_removal() is None:
        scores = fitted.remove(groups, queries)
        return scores.values, scores.unit, scores.diagnostics
    members = [fitted.train.positions(ids) for ids in groups.values()]
    fitted.departure(queries)  # refuses queries with another prediction at the optimum
    effects, answer = np.zeros((len(queries), len(members))), fitted.answer(queries)
    for block, values in answer:
        for group, positions in enumerate(members):
            inside = positions[(positions >= block.start) & (positions < block.stop)]
            effects[:, group] += values[:, inside - block.start].sum(axis=1)
    return effects, *fitted.answered(answer.facts)

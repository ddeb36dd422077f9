"""Predicted effects of changes to a training set, without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.changes import Change
from upweight.core.curvature import Curvature, ExactCurvature, gives_effects
from upweight.core.departure import Departure, departure_of
from upweight.core.examples import Examples
from upweight.core.scores import Unit, require_finite
from upweight.core.weights import weighted_positions

Array = NDArray[np.float64]
NEWTON_STEPS = 20  # at most; a change whose optimum is reached takes no more


@dataclass(frozen=True, eq=False)
class ChangeForecast:
    """Predicts the effect of changes on these queries.

    With an exact curvature (`form` "newton"), Newton steps follow the model to the optimum of the changed objective.
    With any other (`form` "first"), the effect is first order in the change. `departure` says how predictions at the
    optimum, where effects are taken, differ from those of the model.
    """

    model: Any
    train: Examples
    queries: Examples
    curvature: Curvature
    form: str
    departure: Departure | None = None

    @classmethod
    def of(cls, model: Any, train: Examples, queries: Examples, form: str | None, new_inputs: bool) -> ChangeForecast:
        """At the optimum of the training objective, if Newton steps can reach it; else at the model's parameters.

        Raises:
            TypeError: `form` is "newton" and the curvature is not exact.
            ValueError: for one of the queries the optimum predicts something else than the model.
        """
        model.gradient_norm(train)  # refuses data that the model was not fitted on
        ready = model.hypothetical(new_inputs=new_inputs)
        curvature = ready.curvature(train, None, None)
        if isinstance(curvature, ExactCurvature):
            curvature = curvature.reoptimised()
            optimum = ready.with_parameters(curvature.parameters)
            departure = departure_of(model, optimum, train, queries)
            return cls(optimum, train, queries, curvature, form or "newton", departure)
        if form == "newton":
            raise TypeError(f"{type(curvature).__name__} cannot follow changes to a new optimum; ask for form='first'")
        return cls(ready, train, queries, curvature, "first")

    @property
    def unit(self) -> Unit:
        """EFFECT if the curvature gives calibrated sizes at these parameters, else RANK."""
        norms = (partial(of, self.train) for of in (self.model.gradient_norm, self.model.explained_gradient_norm))
        return Unit.EFFECT if gives_effects(self.curvature, *norms) else Unit.RANK

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Diagnostics of the curvature, with a warning if the prediction is first order only."""
        of_departure = [] if self.departure is None else self.departure.warnings()
        warnings = [*self.curvature.diagnostics.get("warnings", ()), *of_departure]
        if self.form == "first":
            warnings.append("Effects are predicted to first order: large changes have larger effects than predicted.")
        return {**self.curvature.diagnostics, "warnings": warnings}

    def effects(self, changes: Sequence[Change]) -> Array:
        """Predicted effect of every change on every query, (queries, changes)."""
        union, factors = _union(self.train, changes)
        if self.form == "newton":
            exact = self.model.curvature(union, None, None)
            assert isinstance(exact, ExactCurvature)
            shifts = exact.newton_steps(factors, None, NEWTON_STEPS).shifts
            effects = self.model.measure_shifted(self.queries, shifts) - self.model.measure(self.queries)[:, None]
        else:
            before = np.arange(len(union)) < len(self.train)
            change_of_gradient = self.model.loss_rows(union).sums(factors - before)
            effects = -self.model.measure_rows(self.queries).dot(self.curvature.solve(change_of_gradient).rows)
        return require_finite(np.asarray(effects))


def _union(train: Examples, changes: Sequence[Change]) -> tuple[Examples, Array]:
    """All examples in the training set before or after any of the changes, and their factors (changes, N)."""
    parts, factors = [_numbered(train, 0)], [np.stack([change.factors(train) for change in changes])]
    for row, change in enumerate(changes):
        for part in _new_examples(train, change):
            block = np.zeros((len(changes), len(part)))
            block[row] = 1.0
            parts.append(_numbered(part, sum(map(len, parts))))
            factors.append(block)
        factors[0][row, train.positions(list(change.relabel))] = 0.0
    return reduce(Examples.joined, parts), np.concatenate(factors, axis=1)


def _new_examples(train: Examples, change: Change) -> list[Examples]:
    """The examples of weight above 0 that a change adds: those with a new label, and new ones."""
    parts = [change.relabelled(train)] if change.relabel else []
    parts += [] if change.add is None else [change.add]
    return [part.take(weighted) for part in parts if len(weighted := weighted_positions(part))]


def _numbered(examples: Examples, start: int) -> Examples:
    """The same examples under ids that no other part of a union has."""
    return examples.replaced(ids=np.arange(start, start + len(examples)))

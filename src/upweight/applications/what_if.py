"""what_if: what would change if the training set were another one, predicted with an interval, then really trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.applications.change_effects import ChangeEffects
from upweight.applications.changes import Change, random_like
from upweight.core.curvature import Curvature, ExactCurvature
from upweight.core.deprecation import BuiltBy, ReplacedBy, accept_old_keywords
from upweight.core.examples import Examples
from upweight.core.model import (
    Differentiable,
    Measurable,
    Predictions,
    Retrainable,
    can,
    require,
    require_reads_examples,
)
from upweight.core.scores import Unit, require_finite
from upweight.core.weights import weighted_positions
from upweight.retraining import deprecated_keywords
from upweight.retraining.retraining import ONE_BY_ONE, Retraining

Array = NDArray[np.float64]
LEVEL = 0.9
FEWEST = 9  # random changes below which no interval of 90 % exists
REMOVALS = 12  # random changes by default
STEPS = 20  # Newton steps at most; a change that has arrived takes no more


@dataclass(frozen=True, eq=False)
class WhatIf:
    """Predicted and actual effects of changes to the training set.

    An effect is the measurement **with** the change minus **without** it: for a removal, minus the example's score.

    Attributes:
        predicted: (queries, changes).
        low, high: (queries, changes), where the actual effect lies with 90 % probability; None without random changes.
        actual: (queries, changes) by real training; None where nothing was trained.
        measured: (queries,) the measurement without any change.
        before: predictions without any change.
        after: predictions of each retrained model, empty where there is none.
        form: "newton" (to the optimum of the changed objective) or "first" (first order in the change).
    """

    predicted: Array
    low: Array | None
    high: Array | None
    actual: Array | None
    measured: Array
    before: Predictions
    after: tuple[Predictions, ...]
    changes: Mapping[str, Change]
    train: Examples
    queries: Examples
    form: str
    unit: Unit
    measurement: str
    diagnostics: Mapping[str, Any]

    def flipped(self, change: str) -> list[Any]:
        """Ids of the queries whose prediction the change turns into another one, by real training."""
        if not self.after or not self.before.classes:
            return []
        then = self.after[list(self.changes).index(change)]
        pairs = zip(self.queries.ids.tolist(), self.before.predicted, then.predicted, strict=True)
        return [identifier for identifier, a, b in pairs if a != b]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""

        def listed(array: Array | None) -> Any:
            return None if array is None else array.T.tolist()

        return {
            "measurement": self.measurement,
            "unit": str(self.unit),
            "form": self.form,
            "queries": self.queries.ids.tolist(),
            "changes": list(self.changes),
            "predicted": listed(self.predicted),
            "low": listed(self.low),
            "high": listed(self.high),
            "actual": listed(self.actual),
            "flipped": {name: self.flipped(name) for name in self.changes},
            "warnings": list(self.diagnostics["warnings"]),
        }

    def __repr__(self) -> str:
        really = "not retrained" if self.actual is None else "retrained"
        return (
            f"WhatIf({len(self.changes)} changes × {len(self.queries)} queries, {self.form}, {self.unit} of "
            f"{self.measurement}, {really})"
        )


def _without_refit(removals: int | None, refit: bool) -> int | None:
    """Today's removals from the older refit=; where an interval is asked for, the changes are trained as well."""
    return None if removals == 0 and not refit else REMOVALS if removals is None else removals


@accept_old_keywords(
    {
        "calibrate": ReplacedBy("removals"),
        "refit": ReplacedBy("removals", "refit", shown="None in place of refit=False with calibrate=0"),
        **deprecated_keywords.one_seed(),
    },
    {"removals": BuiltBy("", _without_refit), **deprecated_keywords.made(ONE_BY_ONE)},
)
def what_if(
    model: Measurable,
    train: Examples,
    queries: Examples,
    changes: Change | Mapping[str, Change],
    *,
    form: Literal["newton", "first"] | None = None,
    removals: int | None = REMOVALS,
    retraining: Retraining | None = None,
) -> WhatIf:
    """What changes of the training set would do to these queries.

    To first order the effect is −∇m_qᵀ H⁻¹ Σ cᵢ∇ℓᵢ over everything that comes (cᵢ > 0) and goes (cᵢ < 0): a new label
    is a removal and an addition. Where the Hessian is exact (linear models), Newton steps follow the model to the
    optimum of the changed objective instead.

    Args:
        model, train, queries: as for `explain`.
        changes: a `Change`, or name → `Change` to compare several.
        form: "newton" or "first"; None for the best that the model has.
        removals: how many random changes of each one's kind and size are predicted and really trained, beside the
            changes themselves; how far off they were makes the interval (split-conformal, 90 %). 0 for the changes
            alone and no interval, else at least 9. None trains nothing.
        retraining: where and how, with one seed, which draws the random changes, too; None for one by one in this
            process (a few trainings of a small model take less time than starting other processes).

    Raises:
        TypeError: a model without gradients; new inputs for a kernel machine; new labels or examples for a training
            function that would not see them, unless removals=None.
        KeyError, ValueError: a change that cannot be made; nothing has been computed then.
    """
    require(model, [Differentiable], "what_if", train, queries)
    retraining = ONE_BY_ONE if retraining is None else retraining
    seed = retraining.only_seed("what_if")
    named = _possible(train, changes, form, removals)
    trainable = can(model, Retrainable)
    if removals is not None and any(change.relabel or change.add is not None for change in named.values()):
        require_reads_examples(model, "retraining with new labels or examples")
    notes = [] if trainable else [f"Nothing was retrained: a {type(model).__name__} cannot be trained again from here."]
    forecast = _Forecast.of(model, train, queries, form, any(change.add is not None for change in named.values()))
    predicted = forecast(list(named.values()))
    truth = low = high = None
    if trainable and removals is not None:
        drawn = [_random_like(change, train, removals, seed) for change in named.values()]
        truth = ChangeEffects.of(retraining, forecast.model, train, queries, list(named.values()), drawn)
        if removals:
            width = [_width(forecast, *of) for of in zip(drawn, truth.random, predicted.T, strict=True)]
            low, high = predicted - np.stack(width, 1), predicted + np.stack(width, 1)
    return WhatIf(
        predicted=predicted,
        low=low,
        high=high,
        actual=None if truth is None else truth.actual,
        measured=model.measure(queries),
        before=model.predict(queries) if truth is None else truth.before,
        after=() if truth is None else truth.after,
        changes=named,
        train=train,
        queries=queries,
        form=forecast.form,
        unit=Unit.EFFECT if forecast.curvature.calibrated else Unit.RANK,
        measurement=model.measurement,
        diagnostics={**forecast.news, "warnings": [*model.notes, *forecast.warnings, *notes]},
    )


def _possible(
    train: Examples, changes: Change | Mapping[str, Change], form: str | None, removals: int | None
) -> dict[str, Change]:
    """The changes by name, if all of them can be made: everything that is wrong is said before the work."""
    named = {"change": changes} if isinstance(changes, Change) else dict(changes)
    if not named:
        raise ValueError("expected at least one change, e.g. {'without 17': uw.Change(remove=[17])}")
    if removals is not None and (removals < 0 or 0 < removals < FEWEST):
        raise ValueError(f"expected removals=0 or at least {FEWEST} (for an interval of 90 %), got {removals}")
    if form not in (None, "newton", "first"):
        raise ValueError(f'expected form "newton", "first" or None for the best, got {form!r}')
    for change in named.values():
        change.applied(train)
    return named


@dataclass(frozen=True, eq=False)
class _Forecast:
    """Predicts the effect of changes on these queries, without training."""

    model: Any
    train: Examples
    queries: Examples
    curvature: Curvature
    form: str

    @classmethod
    def of(cls, model: Any, train: Examples, queries: Examples, form: str | None, new_inputs: bool) -> _Forecast:
        """At the optimum of the training objective, where the way there is known."""
        model.gradient_norm(train)  # refuses data that the model was not fitted on
        ready = model.hypothetical(new_inputs=new_inputs)
        curvature = ready.curvature(train, None, None)
        if isinstance(curvature, ExactCurvature):
            curvature = curvature.settled()
            ready = ready.with_parameters(curvature.parameters)
        elif form == "newton":
            raise TypeError(f"{type(curvature).__name__} cannot follow changes to a new optimum; ask for form='first'")
        return cls(
            ready, train, queries, curvature, form or ("newton" if isinstance(curvature, ExactCurvature) else "first")
        )

    @property
    def news(self) -> dict[str, Any]:
        return {name: value for name, value in self.curvature.diagnostics.items() if name != "warnings"}

    @property
    def warnings(self) -> list[str]:
        found = list(self.curvature.diagnostics.get("warnings", ()))
        if self.form == "first":
            found.append("Predicted to first order: large changes do more than it says.")
        return found

    def __call__(self, changes: Sequence[Change]) -> Array:
        """(queries, changes)."""
        whole, factors = _union(self.train, changes)
        if self.form == "newton":
            exact = self.model.curvature(whole, None, None)
            assert isinstance(exact, ExactCurvature)
            shifts = exact.after(factors, None, STEPS).shifts
            effects = self.model.measure_shifted(self.queries, shifts) - self.model.measure(self.queries)[:, None]
        else:
            there = np.arange(len(whole)) < len(self.train)
            pulled = self.model.loss_rows(whole).sums(factors - there)
            effects = -self.model.measure_rows(self.queries).dot(self.curvature.solve(pulled).rows)
        return require_finite(np.asarray(effects))


def _union(train: Examples, changes: Sequence[Change]) -> tuple[Examples, Array]:
    """All examples that are in the training set before or after any of the changes, and their factors (changes, N)."""
    parts, factors = [_numbered(train, 0)], [np.stack([change.factors(train) for change in changes])]
    for row, change in enumerate(changes):
        for part in _arrivals(train, change):
            block = np.zeros((len(changes), len(part)))
            block[row] = 1.0
            parts.append(_numbered(part, sum(map(len, parts))))
            factors.append(block)
        factors[0][row, train.positions(list(change.relabel))] = 0.0
    return reduce(Examples.joined, parts), np.concatenate(factors, axis=1)


def _arrivals(train: Examples, change: Change) -> list[Examples]:
    """What a change brings, examples of weight 0 apart."""
    found = [change.relabelled(train)] if change.relabel else []
    found += [] if change.add is None else [change.add]
    return [part.take(there) for part in found if len(there := weighted_positions(part))]


def _numbered(examples: Examples, start: int) -> Examples:
    """The same examples under ids that no other part of a union has."""
    return examples.replaced(ids=np.arange(start, start + len(examples)))


def _random_like(change: Change, train: Examples, count: int, seed: int) -> list[Change]:
    rng = np.random.default_rng(seed)
    return [random_like(change, train, rng) for _ in range(count)]


def _width(forecast: _Forecast, drawn: Sequence[Change], actual: Array, predicted: Array) -> Array:
    """Half the interval of every query, from random changes of the same kind and size and their actual effects.

    Residuals are taken relative to √(predicted² + the query's usual predicted²), as large effects err by more.
    """
    guessed = forecast(drawn)
    usual = np.sqrt((guessed**2).mean(axis=1, keepdims=True))
    relative = np.abs(actual - guessed) / np.maximum(np.hypot(guessed, usual), 1e-300)
    rank = min(1.0, math.ceil((len(drawn) + 1) * LEVEL) / len(drawn))
    return np.asarray(np.quantile(relative, rank, method="higher") * np.hypot(predicted, usual[:, 0]))

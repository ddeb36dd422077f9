"""what_if: what would change if the training set were another one, predicted with an interval, then really trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.applications.change import Change, random_like
from upweight.core.curvature import Curvature, ExactCurvature
from upweight.core.examples import Examples
from upweight.core.model import Differentiable, Predictions, Retrainable, can, require, require_reading
from upweight.core.scores import Unit, require_finite
from upweight.core.weights import present

Array = NDArray[np.float64]
LEVEL = 0.9
FEWEST = 9  # random changes below which no interval of 90 % exists
STEPS = 20  # Newton steps at most; a change that has arrived takes no more


@dataclass(frozen=True, eq=False)
class WhatIf:
    """Predicted and actual effects of changes to the training set.

    An effect is the measurement **with** the change minus **without** it: for a removal, minus the example's score.

    Attributes:
        predicted: (queries, changes).
        low, high: (queries, changes), where the actual effect lies with 90 % probability; None without refits.
        actual: (queries, changes) by real training; None where the model cannot be trained again, or was not to be.
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
        really = "not refitted" if self.actual is None else "refitted"
        return (
            f"WhatIf({len(self.changes)} changes × {len(self.queries)} queries, {self.form}, {self.unit} of "
            f"{self.measurement}, {really})"
        )


def what_if(  # noqa: PLR0913 - four that everyone passes, four by keyword
    model: Any,
    train: Examples,
    queries: Examples,
    changes: Change | Mapping[str, Change],
    *,
    form: Literal["newton", "first"] | None = None,
    refit: bool = True,
    calibrate: int = 12,
    seed: int = 0,
) -> WhatIf:
    """What changes of the training set would do to these queries.

    To first order the effect is −∇m_qᵀ H⁻¹ Σ cᵢ∇ℓᵢ over everything that comes (cᵢ > 0) and goes (cᵢ < 0): a new label
    is a removal and an addition. Where the Hessian is exact (linear models), Newton steps follow the model to the
    optimum of the changed objective instead.

    Args:
        model, train, queries: as for `explain`.
        changes: a `Change`, or name → `Change` to compare several.
        form: "newton" or "first"; None for the best that the model has. `refit`: say what really happens, too.
        calibrate: random changes of each one's kind and size that are predicted and really trained; how far off they
            were makes the interval (split-conformal, 90 %). 0 for none, else at least 9.
        seed: for the random changes and handed to the training.

    Raises:
        TypeError: a model without gradients; new inputs for a kernel machine; new labels or examples for a training
            function that would not see them, unless refit=False and calibrate=0.
        KeyError, ValueError: a change that cannot be made; nothing has been computed then.
    """
    require(model, [Differentiable], "what_if", train, queries)
    named = _possible(train, changes, form, calibrate)
    trainable = can(model, Retrainable)
    if (refit or calibrate) and any(change.relabel or change.add is not None for change in named.values()):
        require_reading(model, "a refit with new labels or examples")
    notes = [] if trainable else [f"Nothing was refitted: a {type(model).__name__} cannot be trained again from here."]
    forecast = _Forecast.of(model, train, queries, form, any(change.add is not None for change in named.values()))
    predicted = forecast(list(named.values()))
    truth = _Truth(forecast.model, train, queries, seed) if trainable and (refit or calibrate) else None
    low = high = None
    if truth is not None and calibrate:
        width = np.stack(
            [_width(forecast, truth, c, predicted[:, j], calibrate) for j, c in enumerate(named.values())], 1
        )
        low, high = predicted - width, predicted + width
    models = [truth.after(change) for change in named.values()] if truth is not None and refit else []
    return WhatIf(
        predicted=predicted,
        low=low,
        high=high,
        actual=np.stack([truth.effect(m) for m in models], axis=1) if truth is not None and models else None,
        measured=model.measure(queries),
        before=truth.base.predict(queries) if truth is not None else model.predict(queries),
        after=tuple(m.predict(queries) for m in models),
        changes=named,
        train=train,
        queries=queries,
        form=forecast.form,
        unit=Unit.EFFECT if forecast.curvature.calibrated else Unit.RANK,
        measurement=model.measurement,
        diagnostics={**forecast.news, "warnings": [*getattr(model, "notes", ()), *forecast.warnings, *notes]},
    )


def _possible(
    train: Examples, changes: Change | Mapping[str, Change], form: str | None, calibrate: int
) -> dict[str, Change]:
    """The changes by name, if all of them can be made: everything that is wrong is said before the work."""
    named = {"change": changes} if isinstance(changes, Change) else dict(changes)
    if not named:
        raise ValueError("expected at least one change, e.g. {'without 17': uw.Change(remove=[17])}")
    if calibrate < 0 or 0 < calibrate < FEWEST:
        raise ValueError(f"expected calibrate=0 or at least {FEWEST} (for an interval of 90 %), got {calibrate}")
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


class _Truth:
    """Really trains, once without a change and once with each."""

    def __init__(self, model: Any, train: Examples, queries: Examples, seed: int) -> None:
        self.model, self.train, self.queries, self.seed = model, train, queries, seed
        self.base = model.retrain(train, np.ones(len(train)), seed)
        self._measured = self.base.measure(queries)

    def after(self, change: Change) -> Any:
        """The model trained on the changed set."""
        changed, factors = change.applied(self.train)
        return self.model.retrain(changed, factors, self.seed)

    def effect(self, trained: Any) -> Array:
        """Its measurement minus the one without the change, (queries,)."""
        return np.asarray(trained.measure(self.queries) - self._measured)


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
    return [part.take(there) for part in found if len(there := present(part))]


def _numbered(examples: Examples, start: int) -> Examples:
    """The same examples under ids that no other part of a union has."""
    ids = np.arange(start, start + len(examples))
    return Examples(examples.x, examples.y, ids=ids, names=examples.names, weights=examples.weights)


def _width(forecast: _Forecast, truth: _Truth, change: Change, predicted: Array, count: int) -> Array:
    """Half the interval of every query, from random changes of the same kind and size.

    Residuals are taken relative to √(predicted² + the query's usual predicted²), as large effects err by more.
    """
    rng = np.random.default_rng(truth.seed)
    drawn = [random_like(change, truth.train, rng) for _ in range(count)]
    guessed = forecast(drawn)
    actual = np.stack([truth.effect(truth.after(one)) for one in drawn], axis=1)
    usual = np.sqrt((guessed**2).mean(axis=1, keepdims=True))
    relative = np.abs(actual - guessed) / np.maximum(np.hypot(guessed, usual), 1e-300)
    rank = min(1.0, math.ceil((count + 1) * LEVEL) / count)
    return np.asarray(np.quantile(relative, rank, method="higher") * np.hypot(predicted, usual[:, 0]))

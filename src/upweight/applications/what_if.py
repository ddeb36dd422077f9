"""What-if questions: the effect of changes to the training set, predicted with an interval, checked by retraining."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.applications.change_effects import ChangeEffects
from upweight.applications.change_forecast import ChangeForecast
from upweight.applications.changes import Change, random_like
from upweight.applications.judged import Judged
from upweight.core.capability_checks import can, require, require_reads_examples
from upweight.core.deprecation import BuiltBy, ReplacedBy, accept_old_keywords
from upweight.core.examples import Examples
from upweight.core.model import Differentiable, Measurable, Predictions, Retrainable
from upweight.core.scores import Unit
from upweight.core.tabular import Tabular
from upweight.evaluate.verdict import Judgement, judge, result_words
from upweight.retraining import deprecated_keywords
from upweight.retraining.retraining import ONE_BY_ONE, Retraining

Array = NDArray[np.float64]
LEVEL = 0.9
MIN_RANDOM_CHANGES = 9  # with fewer, no interval of 90 % exists
DEFAULT_RANDOM_CHANGES = 12


@dataclass(frozen=True, eq=False)
class WhatIf(Judged, Tabular):
    """Predicted and actual effects of changes to the training set.

    An effect is the measurement **with** the change minus **without** it: for a removal, minus the example's score.

    Attributes:
        predicted: (queries, changes); None for a model without gradients, whose effects come from retraining alone.
        low, high: (queries, changes), the 90 % interval of the actual effect; None without random changes.
        actual: (queries, changes), by retraining; None if nothing was retrained.
        measured: (queries,), the measurement without any change.
        before: predictions without any change.
        after: predictions of each retrained model; empty if nothing was retrained.
        form: "newton" (to the optimum of the changed objective), "first" (first order in the change), or "retraining"
            (nothing was predicted).
        unit: EFFECT or RANK; EFFECT becomes RANK if retraining does not confirm the sizes.
        judgement: how predicted effects agree with retraining, over the changes and the random ones like them; None if
            nothing was retrained.
    """

    _examples: ClassVar = {"query": "queries"}
    predicted: Array | None
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
    judgement: Judgement | None = None

    def flipped(self, change: str) -> list[Any]:
        """Ids of the queries whose prediction the change flips, by retraining."""
        if not self.after or not self.before.classes:
            return []
        changed = self.after[list(self.changes).index(change)]
        rows = zip(self.queries.ids.tolist(), self.before.predicted, changed.predicted, strict=True)
        return [identifier for identifier, before, after in rows if before != after]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""

        def listed(array: Array | None) -> Any:
            return None if array is None else array.T.tolist()

        return {
            "measurement": self.measurement,
            "unit": str(self.unit),
            "form": self.form,
            **self.judgement_as_dict(),
            "queries": self.queries.ids.tolist(),
            "changes": list(self.changes),
            "predicted": listed(self.predicted),
            "low": listed(self.low),
            "high": listed(self.high),
            "actual": listed(self.actual),
            "flipped": {name: self.flipped(name) for name in self.changes},
            "warnings": list(self.diagnostics["warnings"]),
        }

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        effects = {name: getattr(self, name) for name in ("predicted", "low", "high", "actual")}
        for place, query in enumerate(self.queries.ids.tolist()):
            for number, change in enumerate(self.changes):
                numbers = {name: None if of is None else float(of[place, number]) for name, of in effects.items()}
                yield {"query": query, "change": change, **numbers, "measured": float(self.measured[place])}

    def __repr__(self) -> str:
        check = result_words(self.judgement) if self.judgement else "retrained" if self.after else "not retrained"
        return (
            f"WhatIf({len(self.changes)} changes × {len(self.queries)} queries, {self.form}, {self.unit} of "
            f"{self.measurement}, {check})"
        )


def _without_refit(removals: int | None, refit: bool) -> int | None:
    """The value of removals= from the older calibrate= and refit=; an interval always retrains the changes as well."""
    return None if removals == 0 and not refit else DEFAULT_RANDOM_CHANGES if removals is None else removals


@accept_old_keywords(
    {
        "calibrate": ReplacedBy("removals"),
        "refit": ReplacedBy("removals", "refit", shown="None in place of refit=False with calibrate=0"),
        **deprecated_keywords.one_seed(),
    },
    {"removals": BuiltBy("", _without_refit), **deprecated_keywords.retraining_builder(ONE_BY_ONE)},
)
def what_if(
    model: Measurable,
    train: Examples,
    queries: Examples,
    changes: Change | Mapping[str, Change],
    *,
    form: Literal["newton", "first"] | None = None,
    removals: int | None = DEFAULT_RANDOM_CHANGES,
    retraining: Retraining | None = None,
) -> WhatIf:
    """The effect of changes to the training set on these queries.

    To first order the effect is −∇m_qᵀ H⁻¹ Σ cᵢ∇ℓᵢ over the examples that are added (cᵢ > 0) and removed (cᵢ < 0); a
    new label is a removal and an addition. If the Hessian is exact (linear models), Newton steps follow the model to
    the optimum of the changed objective instead. For a model without gradients (trees, any estimator that is refitted)
    nothing is predicted: it is retrained with each change, and `predicted` is None.

    Args:
        model, train, queries: as for `explain`.
        changes: a `Change`, or name → `Change` to compare several.
        form: "newton" or "first"; None for the best that the model has.
        removals: how many random changes of the same kind and size are predicted and retrained for each change, beside
            the change itself. Their prediction errors give the interval (split-conformal, 90 %). At least 9; or 0,
            which retrains the changes alone and gives no interval; or None, which retrains nothing.
        retraining: where and how to retrain, with one seed, which also draws the random changes. None retrains one by
            one in this process: a few trainings of a small model take less time than starting other processes.

    Raises:
        TypeError: a model that has neither gradients nor can be retrained; new inputs for a kernel machine; new labels
            or examples for a training function that would not see them, unless removals=None.
        KeyError, ValueError: a change that cannot be made. It is raised before any computation.
    """
    trainable = can(model, Retrainable)
    require(model, [Measurable if trainable else Differentiable], "what_if", train, queries)
    retraining = ONE_BY_ONE if retraining is None else retraining
    seed = retraining.only_seed("what_if")
    named = _checked_changes(train, changes, form, removals)
    if removals is not None and any(change.relabel or change.add is not None for change in named.values()):
        require_reads_examples(model, "retraining with new labels or examples")
    if not can(model, Differentiable):
        return _retrained(model, train, queries, named, form, removals, retraining)
    notes = [] if trainable else [f"Nothing was retrained: this {type(model).__name__} cannot be retrained."]
    adds_inputs = any(change.add is not None for change in named.values())
    forecast = ChangeForecast.of(model, train, queries, form, adds_inputs)
    predicted = forecast.effects(list(named.values()))
    truth = low = high = judgement = None
    if trainable and removals is not None:
        random_changes = [_random_changes(change, train, removals, seed) for change in named.values()]
        truth = ChangeEffects.of(retraining, forecast.model, train, queries, list(named.values()), random_changes)
        random_forecasts = [forecast.effects(drawn) for drawn in random_changes if drawn]
        if removals:
            columns = zip(random_forecasts, truth.random, predicted.T, strict=True)
            width = np.stack([_half_width(*column) for column in columns], axis=1)
            low, high = predicted - width, predicted + width
        both = [np.concatenate(s, axis=1) for s in ((predicted, *random_forecasts), (truth.actual, *truth.random))]
        judgement = judge(both[0], both[1], forecast.unit, float(np.abs(model.measure(queries)).max()))
        notes += judgement.warnings(forecast.unit, "effects", counted="change")
    diagnostics = forecast.diagnostics
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
        unit=forecast.unit if judgement is None else judgement.unit_after(forecast.unit),
        measurement=model.measurement,
        diagnostics={**diagnostics, "warnings": [*model.notes, *diagnostics["warnings"], *notes]},
        judgement=judgement,
    )


def _retrained(
    model: Any,
    train: Examples,
    queries: Examples,
    named: dict[str, Change],
    form: str | None,
    removals: int | None,
    retraining: Retraining,
) -> WhatIf:
    """The answer of a model without gradients: each change is retrained, and nothing is predicted."""
    kind = type(model).__name__
    if removals is None or form is not None:
        argument = "removals=None" if removals is None else f"form={form!r}"
        raise TypeError(
            f"{argument} asks for predicted effects, and a {kind} has no gradients to predict them by; leave it out, "
            "and the model is retrained with each change"
        )
    truth = ChangeEffects.of(retraining, model, train, queries, list(named.values()), [[] for _ in named])
    note = f"A {kind} has no gradients: effects were not predicted, each change was retrained."
    return WhatIf(
        predicted=None,
        low=None,
        high=None,
        actual=truth.actual,
        measured=model.measure(queries),
        before=truth.before,
        after=truth.after,
        changes=named,
        train=train,
        queries=queries,
        form="retraining",
        unit=Unit.EFFECT,
        measurement=model.measurement,
        diagnostics={"warnings": [*model.notes, note]},
    )


def _checked_changes(
    train: Examples, changes: Change | Mapping[str, Change], form: str | None, removals: int | None
) -> dict[str, Change]:
    """The changes by name. Raises an error before any computation if one of them cannot be made."""
    named = {"change": changes} if isinstance(changes, Change) else dict(changes)
    if not named:
        raise ValueError("expected at least one change, e.g. {'without 17': uw.Change(remove=[17])}")
    if removals is not None and (removals < 0 or 0 < removals < MIN_RANDOM_CHANGES):
        raise ValueError(
            f"expected removals=0 or at least {MIN_RANDOM_CHANGES} (for an interval of 90 %), got {removals}"
        )
    if form not in (None, "newton", "first"):
        raise ValueError(f'expected form "newton", "first" or None for the best, got {form!r}')
    for change in named.values():
        change.applied(train)
    return named


def _random_changes(change: Change, train: Examples, count: int, seed: int) -> list[Change]:
    rng = np.random.default_rng(seed)
    return [random_like(change, train, rng) for _ in range(count)]


def _half_width(forecasts: Array, actual: Array, predicted: Array) -> Array:
    """Half the width of the interval of every query, from random changes of the same kind and size.

    `forecasts` and `actual` (queries, random changes) are their effects. Residuals are divided by √(predicted² + mean
    predicted² of the query), because errors grow with the effect.
    """
    typical = np.sqrt((forecasts**2).mean(axis=1, keepdims=True))
    relative = np.abs(actual - forecasts) / np.maximum(np.hypot(forecasts, typical), 1e-300)
    count = forecasts.shape[1]
    rank = min(1.0, math.ceil((count + 1) * LEVEL) / count)
    return np.asarray(np.quantile(relative, rank, method="higher") * np.hypot(predicted, typical[:, 0]))

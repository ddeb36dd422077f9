"""How far predictions at the optimum, where scores are taken, are from those of the given model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Differentiable, Measurable, Parametric, Predictions
from upweight.core.scores import Scores

MATERIAL_PROBABILITY = 0.05  # difference of a probability above which the optimum is another model
MATERIAL_TARGET = 0.05  # the same for regression, in standard deviations of the training targets
VISIBLE = 0.1  # share of these differences from which predictions at the optimum are shown beside the model's
SAME_MEASUREMENT = 0.02  # difference of a measurement within which another label is a tie, without probabilities
SPREAD_FLOOR = 1e-300


@dataclass(frozen=True)
class Departure:
    """Predictions of a model and at its optimum for the same queries.

    Attributes:
        ids: of the queries.
        own, optimal: the predictions.
        relabelled: (m,) whether the label is another one, and not only because two labels are as probable.
        difference: (m,) largest difference of a probability, or of a target in standard deviations of the training
            targets; zeros for labels alone.
    """

    ids: NDArray[Any]
    own: Predictions
    optimal: Predictions
    relabelled: NDArray[np.bool_]
    difference: NDArray[np.float64]

    @property
    def _limit(self) -> float:
        return MATERIAL_PROBABILITY if self.own.classes else MATERIAL_TARGET

    @property
    def material(self) -> NDArray[np.bool_]:
        """(m,) whether the optimum is another model for the query."""
        return np.asarray(self.relabelled | (self.difference > self._limit))

    @property
    def is_visible(self) -> bool:
        """Whether a reader would see the difference for one of the queries."""
        return bool(self.relabelled.any() or (self.difference > VISIBLE * self._limit).any())

    def __str__(self) -> str:
        """The differences in words, with the query that differs most."""
        worst = int(np.argmax(self.relabelled + self.difference / max(self.difference.max(), SPREAD_FLOOR)))
        count, total = int(self.material.sum()), len(self.relabelled)
        many = f"for {count} of {total} queries" if count else "slightly"
        return (
            f"{many} (query {self.ids[worst]}: the model predicts {_prediction_text(self.own, worst)}, its optimum "
            f"{_prediction_text(self.optimal, worst)})"
        )


def departure_of(model: Any, scored: Any, train: Examples, queries: Examples) -> Departure | None:
    """How the predictions of a model differ at its optimum; None if scores are not taken at such an optimum.

    Args:
        model: the given model.
        scored: the model at whose parameters scores are taken.
        train: the training set.
        queries: the examples to predict.

    Raises:
        ValueError: for one of the queries the optimum is another model, and the user did not accept this.
    """
    if scored is model or not isinstance(model, Parametric) or model.at_optimum is None:
        return None
    if model.parameter_query() is not None:  # the measurement is not one of predictions
        return None
    departure = compare_predictions(model, scored, train, queries)
    if model.at_optimum or not departure.material.any():
        return departure
    cause = model.why_off_optimum(train) if isinstance(model, Differentiable) else None
    way_out = "Scale the features, raise max_iter or lower tol, and fit it again." if cause is None else cause
    raise ValueError(
        f"expected a {getattr(model, 'name', type(model).__name__)} at the optimum of its training objective, where "
        f"scores are taken; this one is not, and its predictions differ from those of the optimum {departure}. "
        f'{way_out} Or accept scores that explain the optimum, not this model: explainable(…, at="optimum")'
    )


def compare_predictions(model: Measurable, optimum: Measurable, train: Examples, queries: Examples) -> Departure:
    """Compare the predictions of a model with those at its optimum."""
    own, optimal, ids = model.predict(queries), optimum.predict(queries), queries.ids
    if not own.classes:
        return Departure(ids, own, optimal, np.zeros(len(queries), dtype=bool), _in_spreads(own, optimal, train))
    changed = np.array([a != b for a, b in zip(own.predicted, optimal.predicted, strict=True)], dtype=bool)
    difference = np.zeros(len(queries))
    if own.probabilities is not None and optimal.probabilities is not None:
        difference = np.abs(own.probabilities - optimal.probabilities).max(axis=1)
        changed &= difference > VISIBLE * MATERIAL_PROBABILITY
    elif changed.any():
        changed &= np.abs(model.measure(queries) - optimum.measure(queries)) > SAME_MEASUREMENT
    return Departure(ids, own, optimal, changed, difference)


def warnings_of(departures: Sequence[Departure | None]) -> list[str]:
    """A warning for every set of queries for which a reader would see the difference."""
    return [
        "The predictions shown are the model's own. Scores are taken at the optimum of its training objective, whose "
        f"predictions differ {departure}."
        for departure in departures
        if departure is not None and departure.is_visible
    ]


def with_departure(scores: Scores, departure: Departure | None) -> Scores:
    """The scores with the predictions at the optimum and a warning, if a reader would see a difference."""
    if departure is None or not departure.is_visible:
        return scores
    warnings = [*scores.diagnostics.get("warnings", ()), *warnings_of([departure])]
    return replace(scores, diagnostics={**scores.diagnostics, "warnings": warnings}, at_optimum=departure.optimal)


def _in_spreads(own: Predictions, optimal: Predictions, train: Examples) -> NDArray[np.float64]:
    """(m,) the largest difference of a predicted target, in standard deviations of that target in training."""
    values = [np.asarray(p.predicted, dtype=np.float64).reshape(len(p.predicted), -1) for p in (own, optimal)]
    targets = np.asarray(train.y, dtype=np.float64).reshape(len(train), -1)
    spread = np.maximum(targets.std(axis=0), SPREAD_FLOOR)
    return np.asarray((np.abs(values[0] - values[1]) / spread).max(axis=1))


def _prediction_text(predictions: Predictions, place: int) -> str:
    """The prediction of one query, with its probability."""
    value = predictions.predicted[place]
    if not predictions.classes:
        return ", ".join(f"{number:.4g}" for number in np.ravel(value))
    if predictions.probabilities is None:
        return str(value)
    return f"{value} (probability {predictions.probabilities[place].max():.3f})"

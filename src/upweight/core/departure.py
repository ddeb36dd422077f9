"""How far predictions at the optimum, where scores are taken, are from those of the given model."""

from __future__ import annotations

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
ROUNDING = 1e-9  # standard deviation of targets, relative to their size, up to which they are all equal
SPREAD_FLOOR = 1e-300
COARSE = 0.1  # distance to the optimum, in the largest score of a query, from which it is comparable to effects
COARSE_TOLERANCE = 1.0  # the same for a solver that reached its own tolerance, if its predictions differ visibly too


@dataclass(frozen=True)
class Departure:
    """Predictions of a model and at its optimum for the same queries.

    Attributes:
        ids: of the queries.
        own, optimal: the predictions.
        relabelled: (m,) whether the label is another one, and not only because two labels are as probable.
        difference: (m,) largest difference of a probability, or of a target in standard deviations of the training
            targets; zeros for labels alone.
        moved: (m,) how far the measurement moves to the optimum.
        within_tolerance: whether the solver reached its own tolerance.
    """

    ids: NDArray[Any]
    own: Predictions
    optimal: Predictions
    relabelled: NDArray[np.bool_]
    difference: NDArray[np.float64]
    moved: NDArray[np.float64]
    within_tolerance: bool = False

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

    def warnings(self, largest: NDArray[np.float64] | None = None) -> list[str]:
        """What a reader has to know of the optimum, given the largest scores (m,) of the queries if they are known."""
        sentences = []
        if self.is_visible:
            sentences.append(
                "The predictions shown are the model's own. Scores are taken at the optimum of its training objective, "
                f"whose predictions differ {self}."
            )
        if largest is None:
            return sentences
        share = np.where(largest > 0, self.moved / np.maximum(largest, SPREAD_FLOOR), 0.0)
        worst = int(np.argmax(share))
        # With many examples every single effect is smaller than an ordinary tolerance, at which refits stop too.
        is_told = (
            self.is_visible and share[worst] > COARSE_TOLERANCE if self.within_tolerance else share[worst] > COARSE
        )
        if is_told:
            sentences.append(
                f"The solver stopped so far from the optimum of its training objective that the measurement of query "
                f"{self.ids[worst]} moves by {share[worst]:.2g} of its largest score on the way there. Scores are "
                "effects at the optimum; a refit by this solver may stop elsewhere and differ by as much. Scale the "
                "features, lower tol or use another solver, and fit it again."
            )
        return sentences

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
    cause = model.why_off_optimum(train) if isinstance(model, Differentiable) else None
    within_tolerance = cause is None and model.is_within_tolerance(train)
    moved = departure.moved if cause is None else np.zeros(len(queries))  # rows that are missing have their own warning
    departure = replace(departure, moved=moved, within_tolerance=within_tolerance)
    if model.at_optimum or not departure.material.any():
        return departure
    way_out = "Scale the features, raise max_iter or lower tol, and fit it again." if cause is None else cause
    raise ValueError(
        f"expected a {getattr(model, 'name', type(model).__name__)} at the optimum of its training objective, where "
        f"scores are taken; this one is not, and its predictions differ from those of the optimum {departure}. "
        f'{way_out} Or accept scores that explain the optimum, not this model: explainable(…, at="optimum")'
    )


def compare_predictions(model: Measurable, optimum: Measurable, train: Examples, queries: Examples) -> Departure:
    """Compare the predictions of a model with those at its optimum."""
    own, optimal, ids = model.predict(queries), optimum.predict(queries), queries.ids
    moved = np.abs(model.measure(queries) - optimum.measure(queries))
    if not own.classes:
        return Departure(ids, own, optimal, np.zeros(len(ids), dtype=bool), _in_spreads(own, optimal, train), moved)
    changed = np.array([a != b for a, b in zip(own.predicted, optimal.predicted, strict=True)], dtype=bool)
    difference = np.zeros(len(queries))
    if own.probabilities is not None and optimal.probabilities is not None:
        difference = np.abs(own.probabilities - optimal.probabilities).max(axis=1)
        changed &= difference > VISIBLE * MATERIAL_PROBABILITY
    elif changed.any():
        changed &= moved > SAME_MEASUREMENT
    return Departure(ids, own, optimal, changed, difference, moved)


def with_departure(scores: Scores, departure: Departure | None) -> Scores:
    """The scores with the predictions at the optimum and a warning, if a reader would see a difference."""
    sentences = [] if departure is None else departure.warnings(np.abs(scores.values).max(axis=1, initial=0.0))
    if departure is None or not sentences:
        return scores
    warnings = [*scores.diagnostics.get("warnings", ()), *sentences]
    optimal = departure.optimal if departure.is_visible else None
    return replace(scores, diagnostics={**scores.diagnostics, "warnings": warnings}, at_optimum=optimal)


def _in_spreads(own: Predictions, optimal: Predictions, train: Examples) -> NDArray[np.float64]:
    """(m,) the largest difference of a predicted target, in standard deviations of that target in training.

    The size of targets that are all equal takes the place of their standard deviation.
    """
    values = [np.asarray(p.predicted, dtype=np.float64).reshape(len(p.predicted), -1) for p in (own, optimal)]
    targets = np.asarray(train.y, dtype=np.float64).reshape(len(train), -1)
    spread = targets.std(axis=0)
    size = np.sqrt((targets**2).mean(axis=0))
    spread = np.maximum(np.where(spread > ROUNDING * size, spread, size), SPREAD_FLOOR)
    return np.asarray((np.abs(values[0] - values[1]) / spread).max(axis=1))


def _prediction_text(predictions: Predictions, place: int) -> str:
    """The prediction of one query, with its probability."""
    value = predictions.predicted[place]
    if not predictions.classes:
        return ", ".join(f"{number:.4g}" for number in np.ravel(value))
    if predictions.probabilities is None:
        return str(value)
    return f"{value} (probability {predictions.probabilities[place].max():.3f})"

"""Laws of retraining: training with weights equals training on the set that the weights mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upweight.core.capability_checks import can
from upweight.core.model import Differentiable
from upweight.core.weights import weighted_positions
from upweight.testing.assertions import (
    DIFFERENCE_STEP,
    DIFFERENCE_TOLERANCE,
    SOLVER_TOLERANCE,
    assert_close,
    assert_identical,
    assert_true,
)
from upweight.testing.copies import expand_weights
from upweight.testing.model_case import ModelCase

Array = NDArray[np.float64]
RETRAIN_TOLERANCE = 1e-3  # distance of the retrained from the given model, relative to the largest measurement
OPTIMUM_GRADIENT_NORM = 1e-3  # up to this gradient norm, relative to random data's, a model is at its optimum
EFFECT_TOLERANCE = 0.01  # largest error of a weight of 0 (absence) or 2 (a copy), as a share of its effect
TRAINED_EXAMPLES = 3  # number of examples that are tried if each costs a training
ROUNDING_TOLERANCE = 1e-7  # allowed in addition: share of the largest measurement


def check_retrain(case: ModelCase) -> None:
    """Weights of 1 and seed 0 reproduce the model, twice with the same bits, as a new object; other weights change it.

    A model that stopped before its optimum is not compared: retraining continues to the optimum.
    """
    ones, expected = np.ones(len(case.train)), case.model.measure(case.queries)
    first = _retrained(case, ones)
    assert_identical(_retrained(case, ones), first, "two trainings of one seed")
    gradient_norm = (
        case.model.gradient_norm(case.train) if case.model.converges and can(case.model, Differentiable) else None
    )
    if gradient_norm is None or gradient_norm <= OPTIMUM_GRADIENT_NORM:
        assert_close(first, expected, RETRAIN_TOLERANCE, "the model retrained with weights of 1, and the model")
    half = _retrained(case, _half(case))
    assert_true(
        not np.array_equal(half, first),
        "retrained with half of the weights 0, it measures the same as with all of them 1",
    )
    assert_identical(case.model.measure(case.queries), expected, "measurements before and after retraining")


def check_weights(case: ModelCase) -> None:
    """A weight of 0 gives the model of the smaller set, and a weight of 2 the model of the set with a copy.

    The weight is that of the example with the lowest measurement, whose effect is among the largest.
    """
    ones, before = np.ones(len(case.train)), case.model.measure(case.queries)
    whole = _retrained(case, ones)
    hardest = _hardest(case)
    for weight, meaning in ((0, "without that example"), (2, "with a copy of it")):
        changed = ones.copy()
        changed[hardest] = weight
        measured, expected = _retrained(case, changed), _retrained_expanded(case, changed)
        effect, scale = float(np.abs(expected - whole).max()), float(np.abs(expected).max())
        difference = float(np.abs(measured - expected).max())
        assert_true(
            difference <= EFFECT_TOLERANCE * effect + ROUNDING_TOLERANCE * scale,
            f"retrain with a weight of {weight} for {case.train.ids[hardest]}, and on the set {meaning}: they differ "
            f"by {difference:.3g}, where the effect is {effect:.3g}; pass not_weighted='why' if its training does not "
            "treat weights as copies",
        )
    assert_identical(case.model.measure(case.queries), before, "measurements before and after retraining")


def check_stack(case: ModelCase) -> None:
    """`retrain_many` equals `retrain`, row by row of the weights."""
    rows_of_weights = np.ones((TRAINED_EXAMPLES, len(case.train)))
    rows_of_weights[np.arange(1, TRAINED_EXAMPLES), np.arange(1, TRAINED_EXAMPLES)] = 0.0
    together = case.model.retrain_many(case.train, rows_of_weights, [0] * TRAINED_EXAMPLES)
    for row, model in zip(rows_of_weights, together, strict=True):
        alone = case.model.retrain(case.train, row)
        assert_close(
            model.measure(case.queries), alone.measure(case.queries), SOLVER_TOLERANCE, "trained with others and alone"
        )


def check_replay(case: ModelCase) -> None:
    """∂m/∂wᵢ of a replay equals central differences of the measurement after retraining with other weights."""
    ones = np.ones(len(case.train))
    run = case.model.replay(case.train, ones)
    slopes = run.gradients(case.model.after(run).outcome_rows(case.queries, run))[:, :TRAINED_EXAMPLES]
    step = 10 * DIFFERENCE_STEP

    def measure_after(position: int, change: float) -> Array:
        weights = ones.copy()
        weights[position] += change
        return np.asarray(case.model.retrain(case.train, weights).measure(case.queries), dtype=np.float64)

    differences = np.stack(
        [(measure_after(i, step) - measure_after(i, -step)) / (2 * step) for i in range(TRAINED_EXAMPLES)], axis=1
    )
    assert_close(
        slopes, differences, 10 * DIFFERENCE_TOLERANCE, "a replay's derivatives and differences of retrainings"
    )


def _retrained(case: ModelCase, weights: Array) -> Array:
    """Measure the queries after retraining with these weights; `retrain` must return a new object."""
    model = case.model.retrain(case.train, weights)
    assert_true(
        model is not case.model,
        "expected `retrain` to return another model and to leave this one, got the model itself",
    )
    return np.asarray(model.measure(case.queries), dtype=np.float64)


def _retrained_expanded(case: ModelCase, weights: Array) -> Array:
    """Measure the queries after training on a set that holds every example as often as its weight says."""
    train, _ = expand_weights(case.train, weights.astype(int))
    model = (
        case.model.hypothetical() if can(case.model, Differentiable) else case.model
    )  # other training sets are allowed for it
    return np.asarray(model.retrain(train, np.ones(len(train))).measure(case.queries), dtype=np.float64)


def _hardest(case: ModelCase) -> int:
    """Position of the lowest measurement among examples of weight above 0 that are not alone in their class."""
    train, positions = case.train, weighted_positions(case.train)
    if train.y is not None and train.y.ndim == 1:
        _, label, counts = np.unique(train.y[positions], return_inverse=True, return_counts=True)
        shared = positions[counts[label] > 1]
        positions = shared if len(shared) else positions
    return int(positions[np.argmin(case.model.measure(train.take(positions)))])


def _half(case: ModelCase) -> Array:
    """Weights of 0 for every second example, counted within each label, so that no class disappears."""
    y = case.train.y
    order = np.arange(len(case.train)) if y is None or y.ndim > 1 else np.argsort(y, kind="stable")
    half = np.ones(len(case.train))
    half[order[1::2]] = 0.0
    return half

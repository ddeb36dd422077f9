"""Laws of training again: what `retrain` promises, against the training sets that the weights stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from upweight.core.model import Differentiable, can
from upweight.core.weights import weighted_positions
from upweight.testing.assertions import close, hold, same
from upweight.testing.copies import written_out

if TYPE_CHECKING:
    from upweight.testing.laws_of_models import Modelled

Array = NDArray[np.float64]
RETRAINED = 1e-3  # what training on everything may miss the model by, of the largest measurement
AT_OPTIMUM = 1e-3  # gradient norm, of random data's, up to which a model counts as being at its optimum
WRITTEN = 0.01  # what a weight may miss absence or a copy by, of the effect that these have
ROUNDING = 1e-7  # and beside that, of the largest measurement


def retrain(of: Modelled) -> None:
    """Weights of 1 and seed 0 reproduce the model, twice with the same bits, as a new object; others give another.

    A model that stopped before the optimum is another than the optimum that training again goes to.
    """
    ones, expected = np.ones(len(of.train)), of.model.measure(of.queries)
    first = _retrained(of, ones)
    same(_retrained(of, ones), first, "two trainings of one seed")
    off = of.model.gradient_norm(of.train) if of.model.converges and can(of.model, Differentiable) else None
    if off is None or off <= AT_OPTIMUM:
        close(first, expected, RETRAINED, "trained again with weights of 1, and the model")
    half = _retrained(of, _half(of))
    hold(not np.array_equal(half, first), "trained again with half of the weights 0, it measures what it does with all")
    same(of.model.measure(of.queries), expected, "measurements before and after training again")


def weights(of: Modelled) -> None:
    """A weight of 0 gives what the smaller set gives, one of 2 what the set with a copy gives.

    Both are those of the example that the model measures worst, whose effect is among the largest.
    """
    ones, before = np.ones(len(of.train)), of.model.measure(of.queries)
    whole = _retrained(of, ones)
    hardest = _hardest(of)
    for weight, what in ((0, "without that example"), (2, "with a copy of it")):
        given = ones.copy()
        given[hardest] = weight
        ours, expected = _retrained(of, given), _written_out(of, given)
        effect, scale = float(np.abs(expected - whole).max()), float(np.abs(expected).max())
        differ = float(np.abs(ours - expected).max())
        hold(
            differ <= WRITTEN * effect + ROUNDING * scale,
            f"retrain with a weight of {weight} for {of.train.ids[hardest]}, and on the set {what}: they differ by "
            f"{differ:.3g}, where the effect is {effect:.3g}; pass not_weighted='why' if it weighs by nature otherwise",
        )
    same(of.model.measure(of.queries), before, "measurements before and after training again")


def _retrained(of: Modelled, given: Array) -> Array:
    """What the model measures after training with these weights; it must be another object."""
    model = of.model.retrain(of.train, given)
    hold(
        model is not of.model, "expected `retrain` to return another model and to leave this one, got the model itself"
    )
    return np.asarray(model.measure(of.queries), dtype=np.float64)


def _written_out(of: Modelled, given: Array) -> Array:
    """What it measures after training on a set that holds every example as often as its weight says."""
    train, _ = written_out(of.train, given.astype(int))
    model = of.model.hypothetical() if can(of.model, Differentiable) else of.model  # for sets it was not fitted on
    return np.asarray(model.retrain(train, np.ones(len(train))).measure(of.queries), dtype=np.float64)


def _hardest(of: Modelled) -> int:
    """Position of the example that the model measures worst: one that weighs something and is not all of its class."""
    train, places = of.train, weighted_positions(of.train)
    if train.y is not None and train.y.ndim == 1:
        _, label, counts = np.unique(train.y[places], return_inverse=True, return_counts=True)
        shared = places[counts[label] > 1]
        places = shared if len(shared) else places
    return int(places[np.argmin(of.model.measure(train.take(places)))])


def _half(of: Modelled) -> Array:
    """A weight of 0 for every second example, counted label by label, so that no class is gone."""
    y = of.train.y
    order = np.arange(len(of.train)) if y is None or y.ndim > 1 else np.argsort(y, kind="stable")
    half = np.ones(len(of.train))
    half[order[1::2]] = 0.0
    return half

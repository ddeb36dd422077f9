"""Errors in regression targets: out-of-fold residuals in units of the noise, and residuals of leave-one-out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from upweight.applications.cross_fitting import HeldOut, Round, fold_notes, fold_positions, train_on_folds
from upweight.core.examples import Examples
from upweight.core.model import Predictions
from upweight.core.weights import weighted_positions
from upweight.retraining.retraining import Retraining

Array = NDArray[np.float64]
NORMAL = 1.4826  # standard deviation of a normal distribution, by its median absolute deviation
WRONG = 3.0  # standard deviations of the noise beyond which a target looks wrong after the first round
GROWING_NOISE, SURE = 0.25, 1e-3  # rank correlation and p-value from which noise is taken to vary with the prediction
NEIGHBOURS, MIN_NEIGHBOURS = 0.2, 40  # share of the examples with the closest predictions, and how many at least
SMALLEST_NOISE = 0.2  # of the noise of all examples, for an example's own
SQUARED = 1e-3  # relative spread of loss / residual² up to which the loss is a squared error


@dataclass(frozen=True, eq=False)
class TargetErrors:
    """How far targets are from predictions of models that were not trained with them.

    Attributes:
        predicted: (n,), by such a model; by the model itself for an example in no fold (one of weight 0, or all
            examples of a model that cannot be retrained).
        residual: (n,), target minus `predicted`.
        noise: (n,), the standard deviation of residuals of examples with such predictions.
        suspicion: (n,), the higher, the more likely the target is wrong.
        notes: sentences on what was found.
    """

    predicted: Array
    residual: Array
    noise: Array
    suspicion: Array
    notes: tuple[str, ...] = ()


def target_errors(
    train: Examples, predictions: Predictions, loss: Array, leave_one_out: Array | None, held_out: HeldOut | None
) -> TargetErrors:
    """Rank the targets by the mean of their ranks in two residuals, each in units of the noise.

    Args:
        train: the training set.
        predictions: those of the model itself for it. Their residuals are the first, unless the loss is a squared
            error and `leave_one_out` is known.
        loss: (n,), of the model itself.
        leave_one_out: (n,), the loss of each example under a model trained without it; None if it is not known.
        held_out: the second residuals; None if there are none.
    """
    assert train.y is not None
    targets, weighted = train.y.astype(np.float64), weighted_positions(train)
    by_model = numbers_of(predictions)
    predicted = by_model.copy()
    if held_out is not None:
        for fold, answers in zip(held_out.places, held_out.predictions, strict=True):
            predicted[fold] = numbers_of(answers)
    residual = targets - predicted
    noise, varies = noise_of(residual[weighted], predicted[weighted])
    noises = np.full(len(train), np.median(noise))
    noises[weighted] = noise
    first = np.abs(targets - by_model)
    scale = _scale_of_squares(loss[weighted], first[weighted])
    if scale is not None and leave_one_out is not None:
        first = np.sqrt(np.maximum(leave_one_out, 0.0) / scale)
    evidence = [first] if held_out is None else [first, np.abs(residual)]
    ranks = sum(rankdata((values / noises)[weighted]) for values in evidence) / (len(evidence) * len(weighted))
    suspicion = np.full(len(train), np.min(ranks))
    suspicion[weighted] = ranks
    notes = ("The noise varies with the prediction: residuals are compared in units of it.",) if varies else ()
    return TargetErrors(predicted, residual, noises, suspicion, notes)


def held_out_targets(model: Any, train: Examples, folds: int | None, retraining: Retraining) -> HeldOut:
    """Two rounds of one training per fold; the second leaves out targets beyond three standard deviations of the noise.

    Folds spread evenly over the targets. The second round is used if it predicts the other targets better.

    Raises ValueError for less than two examples, or for more folds than examples.
    """
    places, count = fold_positions(train, weighted_positions(train), folds, retraining.only_seed("mislabeled"))
    everything = np.ones(len(train), dtype=bool)
    first = train_on_folds(retraining.part(0, 2 * count), model, train, places, everything)
    residuals, wrong = _residuals_of(train, places, first)
    trusted = ~wrong
    if any(not np.delete(trusted, fold).any() for fold in places):
        trusted = everything
    second = train_on_folds(retraining.part(count, 2 * count), model, train, places, trusted)
    new_residuals, still_wrong = _residuals_of(train, places, second)
    helps = bool(np.nanmean(np.abs(new_residuals[trusted])) < np.nanmean(np.abs(residuals[trusted])))
    return HeldOut(
        loss=np.stack([first.loss, second.loss]),
        agrees=np.stack([~wrong, ~still_wrong]),
        left_out=~trusted,
        helps=helps,
        counted=(second if helps else first).loss,
        predictions=(second if helps else first).predictions,
        places=places,
        notes=tuple(fold_notes(count, folds)),
    )


def _residuals_of(
    train: Examples, places: tuple[NDArray[np.intp], ...], answers: Round
) -> tuple[Array, NDArray[np.bool_]]:
    """Out-of-fold residuals (n,), NaN outside all folds, and which of them are beyond the noise."""
    assert train.y is not None
    predicted, inside = np.full(len(train), np.nan), np.concatenate(places)
    for fold, predictions in zip(places, answers.predictions, strict=True):
        predicted[fold] = numbers_of(predictions)
    residuals = train.y.astype(np.float64) - predicted
    wrong = np.zeros(len(train), dtype=bool)
    noise, _ = noise_of(residuals[inside], predicted[inside])
    wrong[inside] = np.abs(residuals[inside]) > WRONG * noise
    return residuals, wrong


def noise_of(residuals: Array, predicted: Array) -> tuple[Array, bool]:
    """The standard deviation of the noise of each example, (n,), and whether it varies with the prediction.

    It is estimated by medians, so that wrong targets hardly count: over all examples, or over those with the closest
    predictions if the size of residuals varies with the prediction.
    """
    sizes, n = np.abs(residuals), len(residuals)
    overall = NORMAL * float(np.median(sizes)) or float(sizes.mean()) or 1.0
    width = max(MIN_NEIGHBOURS, round(NEIGHBOURS * n))
    if n <= 2 * width or not np.ptp(predicted) > 0 or not np.ptp(sizes) > 0:
        return np.full(n, overall), False
    correlation, p_value = spearmanr(sizes, predicted)
    if not (abs(correlation) >= GROWING_NOISE and p_value < SURE):
        return np.full(n, overall), False
    order = np.argsort(predicted, kind="stable")
    windows = np.lib.stride_tricks.sliding_window_view(sizes[order], width)
    starts = np.clip(np.arange(n) - width // 2, 0, len(windows) - 1)
    noise = np.empty(n)
    noise[order] = NORMAL * np.median(windows, axis=1)[starts]
    return np.maximum(noise, SMALLEST_NOISE * overall), True


def numbers_of(predictions: Predictions) -> Array:
    """Predicted targets (n,). Raises ValueError if a prediction is not one number."""
    try:
        numbers = np.asarray(predictions.predicted, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.full((0, 0), np.nan)
    if numbers.ndim != 1 or np.isnan(numbers).any():
        raise ValueError(
            "expected a model that predicts one number per example, to compare it with the target, got "
            f"{predictions.predicted[0]!r}; review one target at a time"
        )
    return numbers


def _scale_of_squares(loss: Array, distances: Array) -> float | None:
    """c if every loss is c · distance²; None otherwise."""
    clear = distances > SQUARED * distances.max(initial=0.0)
    if not clear.any():
        return None
    ratios = loss[clear] / distances[clear] ** 2
    typical = float(np.median(ratios))
    return typical if typical > 0 and np.ptp(ratios) <= SQUARED * typical else None

"""Reweight: weights of training examples, unlabelled ones or groups, learned so that validation examples do better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.pseudo_labels import joined_with_unlabelled
from upweight.applications.reweighted import Reweighted
from upweight.applications.reweighting import Reweighting
from upweight.applications.reweighting_checks import few_held_out, free_weights, kept_apart
from upweight.applications.weight_ascent import WeightAscent, way_of
from upweight.applications.weight_gains import SINGLE, Arms, best_single_weight, gains_of
from upweight.applications.weight_shifts import weight_shifts
from upweight.applications.weight_slopes import FreeWeights
from upweight.applications.weight_steps import FLOOR, final_weights
from upweight.core.capability_checks import can, require
from upweight.core.examples import Examples, Id
from upweight.core.forecast import announced
from upweight.core.library_calls import with_gradients
from upweight.core.model import Differentiable, Measurable, Retrainable

Array = NDArray[np.float64]


@with_gradients()
def reweight(
    model: Measurable,
    train: Examples,
    validation: Examples,
    *,
    held_out: Examples | None = None,
    unlabelled: Examples | None = None,
    groups: Mapping[str, Sequence[Id]] | None = None,
    reweighting: Reweighting | None = None,
) -> Reweighted:
    """Learn weights with which the model, trained again, measures higher on the validation examples.

    All weights begin at 1, or those of unlabelled examples at the best single weight. They follow the
    derivative of the mean validation measurement in each of them, by Adam. The weights of the best step are kept, the
    model is trained with them, and compared on the held-out examples with models that were trained with uniform
    weights, without the examples of highest loss, and with the learned weights at random places.

    Args:
        model: a model that can be retrained and measures higher for better, such as the default −loss.
        train: its training set.
        validation: examples with labels whose mean measurement is to rise.
        held_out: examples with labels that neither training nor weighting sees, on which the gain is measured; None
            measures no gain.
        unlabelled: more inputs, which get the labels that the model predicts, or those that they come with. If they
            are given without groups, their weights are learned and those of the training examples stay 1.
        groups: name → ids, to learn one weight per group; all other weights stay 1. None for one per example.
        reweighting: how to learn; None for `Reweighting()`.

    Raises:
        ValueError: validation examples that are also training or held-out examples, unlabelled ones of another kind,
            groups that overlap or hold everything, weights that all go to zero.
        TypeError: a model that cannot be retrained, or without the derivative that `slopes` names.
    """
    require(model, [Retrainable], "reweight", train, validation)
    reweighting = Reweighting() if reweighting is None else reweighting
    if not isinstance(reweighting, Reweighting):
        raise TypeError(f"expected reweighting as uw.Reweighting(…) or None, got {reweighting!r}")
    sets, copies = kept_apart(
        {"training": train, "unlabelled": unlabelled, "validation": validation, "held-out": held_out}
    )
    copies += few_held_out(sets["held-out"])
    notes: list[str] = []
    both, guide = train, sets["validation"]
    assert guide is not None
    if unlabelled is not None:
        both, notes = joined_with_unlabelled(model, train, unlabelled)
        if isinstance(model, Differentiable) and can(model, Differentiable):
            model = model.hypothetical(new_inputs=True)
    free = free_weights(both, train, groups)
    retraining = reweighting.retraining_of(model)
    settings = replace(reweighting, slopes=reweighting.slopes or way_of(model, both, free), retraining=retraining)
    single = None
    if unlabelled is not None and groups is None:
        single = best_single_weight(model, both, guide, free, retraining)
    ascent = WeightAscent(model, both, guide, free, settings, 1.0 if single is None else max(single, FLOOR))
    with announced(f"reweight, {len(free.names):,} weights", None):
        course, learned = ascent.ascend()
    weights = _checked(final_weights(learned))
    retrained = _trained(model, both, free.of_examples(weights), retraining.runs[0])
    after = float(retrained.measure(guide).mean())
    result = Reweighted(
        weights=weights,
        names=free.names,
        of="groups" if groups is not None else "examples" if unlabelled is None else "unlabelled examples",
        slopes=str(settings.slopes),
        course=(*course, after),
        measured=np.nan,
        accuracy=None,
        gains=(),
        shifts=() if groups is not None else weight_shifts(model, both, free, weights),
        model=retrained,
        train=both,
        example_weights=free.of_examples(weights),
        measurement=model.measurement,
        diagnostics={"warnings": [*copies, *_warnings(course[0], after)], "notes": [*model.notes, *notes]},
    )
    return _compared(result, model, free, settings, sets["held-out"], single)


def _compared(
    result: Reweighted,
    model: Any,
    free: FreeWeights,
    settings: Reweighting,
    held_out: Examples | None,
    single: float | None,
) -> Reweighted:
    """The result with its gains on the held-out examples."""
    if held_out is None:
        note = "The gain was not measured: pass held_out=, examples that neither training nor weighting saw."
        notes = [*result.diagnostics["notes"], note]
        return replace(result, diagnostics={**result.diagnostics, "notes": notes})
    retraining = settings.retraining_of(model)
    arms = Arms.of(model, result.train, free, result.weights, retraining)
    if single is not None:
        words = f"weight {single:g} for all unlabelled examples"
        arms = arms.with_arm(SINGLE, np.full((1, len(result.weights)), single), words)
    measured, accuracy, gains = gains_of(model, result.train, held_out, free, arms, retraining)
    return replace(result, measured=measured, accuracy=accuracy, gains=gains)


def _checked(weights: Array) -> Array:
    """The learned weights. Raises ValueError if nothing is left of them."""
    if not weights.any():
        raise ValueError(
            f"all {len(weights):,} weights went to zero: the validation examples do better without any of them. Check "
            "that labels mean the same on both sides, or pass a smaller Reweighting(rate=…) or fewer steps"
        )
    return weights


def _trained(model: Any, train: Examples, weights: Array, seed: int) -> Any:
    try:
        return model.retrain(train, weights, seed)
    except ValueError as error:
        raise ValueError(
            f"the learned weights leave nothing to train on ({error}); pass a smaller Reweighting(rate=…) or fewer "
            "steps"
        ) from error


def _warnings(before: float, after: float) -> list[str]:
    if after > before:
        return []
    return [
        f"The mean measurement of the validation examples did not rise ({before:.4g} before, {after:.4g} after): these "
        "weights are no better than those at the beginning; try a smaller Reweighting(rate=…)."
    ]

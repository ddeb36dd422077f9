"""Reweight: weights of training examples, unlabelled ones or groups, learned so that validation examples do better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.pseudo_labels import joined_with_unlabelled
from upweight.applications.reweighted import Reweighted
from upweight.applications.reweighting import Reweighting, Way
from upweight.applications.reweighting_checks import free_weights, kept_apart, require_labels
from upweight.applications.weight_gains import SINGLE, Arms, WeightGain, best_single_weight, gains_of
from upweight.applications.weight_shifts import weight_shifts
from upweight.applications.weight_slopes import (
    FreeWeights,
    InfluenceSlopes,
    LastLayerSlopes,
    MetagradientSlopes,
    RetrainingSlopes,
    Slopes,
    WeightSlopes,
)
from upweight.applications.weight_steps import WeightSteps, final_weights
from upweight.core.capability_checks import can, require
from upweight.core.examples import Examples, Id
from upweight.core.model import Differentiable, Measurable, Parametric, Retrainable
from upweight.core.progress import no_progress
from upweight.core.replayable import Replayable
from upweight.core.steerable import Steerable
from upweight.core.tree_based import Boosted

Array = NDArray[np.float64]
MOST_DIFFERENCES = 50  # weights whose slopes come from two retrainings each


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

    All weights begin at 1 and go uphill along the derivative of the mean validation measurement in each of them, by
    Adam. The weights of the best step are kept, the model is trained with them, and compared on the held-out examples
    with models that were trained with uniform weights, without the examples of highest loss, and with the learned
    weights at random places.

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
    sets: Mapping[str, Examples | None] = {
        "training": train,
        "unlabelled": unlabelled,
        "validation": validation,
        "held-out": held_out,
    }
    require_labels(model, sets)
    sets, copies = kept_apart(sets)
    validation, held_out = validation if sets["validation"] is None else sets["validation"], sets["held-out"]
    notes: list[str] = []
    both = train
    if unlabelled is not None:
        both, notes = joined_with_unlabelled(model, train, unlabelled)
        if isinstance(model, Differentiable) and can(model, Differentiable):
            model = model.hypothetical(new_inputs=True)
    free = free_weights(both, train, groups)
    retraining = reweighting.retraining_of(model)
    way = _way(model, both, free) if reweighting.slopes is None else reweighting.slopes
    ascent = _Ascent(model, both, validation, free, replace(reweighting, slopes=way, retraining=retraining))
    course, learned = ascent.during_training() if way == "last layer" else ascent.after_training()
    weights = _checked(final_weights(learned), free, both)
    retrained = _trained(model, both, free.of_examples(weights), retraining.runs[0])
    gains: tuple[WeightGain, ...] = ()
    measured: float = np.nan
    accuracy: float | None = None
    if held_out is not None:
        arms = Arms.of(model, both, free, weights, retraining)
        if unlabelled is not None and groups is None:
            single = best_single_weight(model, both, validation, free, retraining)
            words = f"weight {single:g} for all unlabelled examples"
            arms = arms.with_arm(SINGLE, np.full((1, len(weights)), single), words)
        measured, accuracy, gains = gains_of(model, both, held_out, free, arms, retraining)
    else:
        notes.append("The gain was not measured: pass held_out=, examples that neither training nor weighting saw.")
    after = float(retrained.measure(validation).mean())
    return Reweighted(
        weights=weights,
        names=free.names,
        of="groups" if groups is not None else "examples" if unlabelled is None else "unlabelled examples",
        slopes=way,
        course=(*course, after),
        measured=measured,
        accuracy=accuracy,
        gains=gains,
        shifts=() if groups is not None else weight_shifts(model, both, free, weights),
        model=retrained,
        train=both,
        example_weights=free.of_examples(weights),
        measurement=model.measurement,
        diagnostics={"warnings": [*copies, *_warnings(course[0], after)], "notes": [*model.notes, *notes]},
    )


@dataclass(frozen=True, eq=False)
class _Ascent:
    """Learned weights going uphill, with the way and the trainings in `settings`."""

    model: Any
    train: Examples
    validation: Examples
    free: FreeWeights
    settings: Reweighting

    def after_training(self) -> tuple[list[float], Array]:
        """(mean validation measurement before every step, weights of the best step); one training per step."""
        slopes, steps = self._slopes(), WeightSteps(self.settings.rate, self.settings.largest)
        weights = np.ones(len(self.free.names))
        course: list[float] = []
        best, kept = -np.inf, weights
        for number in range(self.settings.steps + 1):
            value, uphill = self._at(slopes, weights)
            course.append(value)
            if value > best:
                best, kept = value, weights
            self._report(number)
            if number < self.settings.steps:
                weights = steps.taken(weights, self._checked_slopes(uphill, number))
        return course, kept

    def during_training(self) -> tuple[list[float], Array]:
        """The same, with all steps within one training, and the weights at its end."""
        require(self.model, [Steerable], 'reweight(slopes="last layer")')
        slopes = LastLayerSlopes(self.model, self.train, self.validation, self.settings.damping)
        steps = WeightSteps(self.settings.rate, self.settings.largest)
        course: list[float] = [float(self.model.measure(self.validation).mean())]
        weights = [np.ones(len(self.free.names))]

        def steer(model: Any, of_examples: Array) -> Array:
            value, uphill = slopes.of(model, of_examples)
            course.append(value)
            self._report(len(course) - 1)
            weights[0] = steps.taken(weights[0], self._checked_slopes(self.free.summed(uphill), len(course) - 2))
            return self.free.of_examples(weights[0])

        assert self.settings.retraining is not None
        seed = self.settings.retraining.runs[0]
        self.model.retrain_steered(self.train, np.ones(len(self.train)), steer, self.settings.steps, seed)
        return course, weights[0]

    def _slopes(self) -> WeightSlopes:
        parts = (self.model, self.train, self.validation)
        if self.settings.slopes == "retraining":
            if len(self.free.names) > MOST_DIFFERENCES:
                raise TypeError(
                    f'slopes="retraining" trains twice per weight and step, and there are {len(self.free.names):,}; '
                    f"pass groups= (at most {MOST_DIFFERENCES}), or a model with derivatives"
                )
            assert self.settings.retraining is not None
            only_first = replace(self.settings.retraining, seeds=[self.settings.retraining.runs[0]], progress=None)
            return RetrainingSlopes(*parts, self.free, only_first)
        if self.settings.slopes == "metagradient":
            require(self.model, [Differentiable, Parametric, Replayable], 'reweight(slopes="metagradient")')
            return MetagradientSlopes(*parts)
        if not isinstance(self.model, Boosted):
            require(self.model, [Differentiable], 'reweight(slopes="influence")')
            if not self.model.converges:
                raise TypeError(
                    'slopes="influence" needs a training that ends at an optimum, which a network\'s does not; use '
                    'slopes="metagradient" or slopes="last layer"'
                )
        return InfluenceSlopes(*parts)

    def _at(self, slopes: WeightSlopes, weights: Array) -> Slopes:
        value, of_examples = slopes.at(self.free.of_examples(weights))
        return Slopes(value, self.free.summed(of_examples))

    def _checked_slopes(self, uphill: Array, number: int) -> Array:
        if not np.isfinite(uphill).all():
            raise ValueError(f"the slopes of {int((~np.isfinite(uphill)).sum()):,} weights are not finite")
        if number == 0 and not uphill.any():
            raise ValueError(
                "expected a validation measurement that changes with the weights, but all slopes are 0: training does "
                "not see these examples (batches=?), or the validation examples do not depend on it"
            )
        return uphill

    def _report(self, done: int) -> None:
        assert self.settings.retraining is not None
        (self.settings.retraining.progress or no_progress)("reweight", done, self.settings.steps)


def _way(model: Measurable, train: Examples, free: FreeWeights) -> Way:
    """The first way that the model allows."""
    assert isinstance(model, Retrainable)
    if can(model, Differentiable) and model.converges:
        return "influence"
    if isinstance(model, Boosted) and can(model, Boosted) and model.grown(train).exact:
        return "influence"
    if can(model, Replayable) and can(model, Differentiable):
        return "metagradient"
    if len(free.names) <= MOST_DIFFERENCES:
        return "retraining"
    raise TypeError(
        f"a {type(model).__name__} has no derivative in the weights of its examples, so each of {len(free.names):,} "
        f"weights would take two trainings per step; pass groups= (at most {MOST_DIFFERENCES})"
    )


def _checked(weights: Array, free: FreeWeights, train: Examples) -> Array:
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
        "weights are no better than uniform ones; try a smaller Reweighting(rate=…)."
    ]

"""The ascent of learned weights: after one training per step, or within one training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.reweighting import Reweighting, Way
from upweight.applications.weight_slopes import (
    FreeWeights,
    InfluenceSlopes,
    LastLayerSlopes,
    MetagradientSlopes,
    RetrainingSlopes,
    Slopes,
    WeightSlopes,
)
from upweight.applications.weight_steps import WeightSteps
from upweight.core.capability_checks import can, require
from upweight.core.examples import Examples
from upweight.core.forecast import counted
from upweight.core.model import Differentiable, Measurable, Parametric, Retrainable
from upweight.core.progress import no_progress
from upweight.core.replayable import Replayable
from upweight.core.steerable import Steerable
from upweight.core.tree_based import Boosted

Array = NDArray[np.float64]
MOST_DIFFERENCES = 50  # weights whose slopes come from two retrainings each


@dataclass(frozen=True, eq=False)
class WeightAscent:
    """Gradient ascent on the learned weights.

    Attributes:
        settings: with the way to the slopes and the trainings.
        beginning: the weight that all of them begin with.
    """

    model: Any
    train: Examples
    validation: Examples
    free: FreeWeights
    settings: Reweighting
    beginning: float

    def ascend(self) -> tuple[list[float], Array]:
        """(mean validation measurement before every step, learned weights)."""
        return self._during_training() if self.settings.slopes == "last layer" else self._after_training()

    def _after_training(self) -> tuple[list[float], Array]:
        """(mean validation measurement before every step, weights of the best step); one training per step."""
        slopes, steps = self._slopes(), WeightSteps(self.settings.rate, self.settings.largest)
        weights = np.full(len(self.free.names), self.beginning)
        course: list[float] = []
        best, best_weights = -np.inf, weights
        for number in counted(range(self.settings.steps + 1), self.settings.steps + 1):
            value, slope_of_weights = self._at(slopes, weights)
            course.append(value)
            if value > best:
                best, best_weights = value, weights
            self._report(number)
            if number < self.settings.steps:
                weights = steps.taken(weights, self._checked_slopes(slope_of_weights, number))
        return course, best_weights

    def _during_training(self) -> tuple[list[float], Array]:
        """The same, with all steps within one training, and the weights at its end."""
        require(self.model, [Steerable], 'reweight(slopes="last layer")')
        slopes = LastLayerSlopes(self.model, self.train, self.validation, self.settings.damping)
        steps = WeightSteps(self.settings.rate, self.settings.largest)
        course: list[float] = [float(self.model.measure(self.validation).mean())]
        weights = [np.full(len(self.free.names), self.beginning)]

        def steer(model: Any, of_examples: Array) -> Array:
            value, slope_of_weights = slopes.of(model, of_examples)
            course.append(value)
            self._report(len(course) - 1)
            weights[0] = steps.taken(
                weights[0], self._checked_slopes(self.free.summed(slope_of_weights), len(course) - 2)
            )
            return self.free.of_examples(weights[0])

        assert self.settings.retraining is not None
        seed = self.settings.retraining.runs[0]
        self.model.retrain_steered(self.train, self.free.of_examples(weights[0]), steer, self.settings.steps, seed)
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

    def _checked_slopes(self, slope_of_weights: Array, number: int) -> Array:
        if not np.isfinite(slope_of_weights).all():
            raise ValueError(f"the slopes of {int((~np.isfinite(slope_of_weights)).sum()):,} weights are not finite")
        if number == 0 and not slope_of_weights.any():
            raise ValueError(
                "expected a validation measurement that changes with the weights, but all slopes are 0: training does "
                "not see these examples (batches=?), or the validation examples do not depend on it"
            )
        return slope_of_weights

    def _report(self, done: int) -> None:
        assert self.settings.retraining is not None
        (self.settings.retraining.progress or no_progress)("reweight", done, self.settings.steps)


def way_of(model: Measurable, train: Examples, free: FreeWeights) -> Way:
    """The first way that the model allows."""
    assert isinstance(model, Retrainable)
    if can(model, Differentiable) and model.converges:
        return "influence"
    if isinstance(model, Boosted) and can(model, Boosted) and model.grown(train).has_derivatives:
        return "influence"
    if can(model, Replayable) and can(model, Differentiable):
        return "metagradient"
    if len(free.names) <= MOST_DIFFERENCES:
        return "retraining"
    raise TypeError(
        f"expected a model with derivatives in the weights of its examples, got {getattr(model, 'name', 'one')} "
        f"without: each of {len(free.names):,} weights would take two trainings per step; pass groups= (at most "
        f"{MOST_DIFFERENCES})"
    )

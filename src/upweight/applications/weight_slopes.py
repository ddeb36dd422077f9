"""How the mean measurement of validation examples changes with the weights of training examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.applications.last_layer import LastLayer, last_layer_slopes
from upweight.applications.predicted_labels import class_labels
from upweight.core.attributor import Attributor
from upweight.core.capability_checks import can
from upweight.core.examples import Examples
from upweight.core.model import Embeddable
from upweight.core.tree_based import TreeBased
from upweight.core.weights import sample_weights
from upweight.methods.influence import Influence
from upweight.methods.leaf_influence import LeafInfluence
from upweight.retraining.engine import run_tasks
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import Task

Array = NDArray[np.float64]
DIFFERENCE = 0.1  # by which a weight is raised and lowered if slopes come from retraining
CROSS_ENTROPY = 1e-3  # accepted distance, in nats, of the measurement from the log-probability of the label


@dataclass(frozen=True, eq=False)
class FreeWeights:
    """The weights that are learned: of single training examples or of groups of them.

    Attributes:
        part: the number of the learned weight that each training example has, (n,); −1 for a weight that stays 1.
        names: of the learned weights: ids or names of groups.
    """

    part: NDArray[np.intp]
    names: tuple[Any, ...]

    def of_examples(self, learned: Array) -> Array:
        """The weight of every training example, (n,), from those that are learned (k,), or (…, n) from (…, k)."""
        padded = np.concatenate([learned, np.ones((*learned.shape[:-1], 1))], axis=-1)
        return np.asarray(padded[..., self.part])

    def summed(self, slopes: Array) -> Array:
        """The slope in every learned weight, (k,), from those in the weights of examples (n,)."""
        is_free = self.part >= 0
        return np.asarray(np.bincount(self.part[is_free], slopes[is_free], minlength=len(self.names)), dtype=np.float64)


class Slopes(NamedTuple):
    """The mean measurement of the validation examples, and its derivative in the weight of every example, (n,)."""

    value: float
    slopes: Array


class WeightSlopes(ABC):
    """One way to the derivative, for a model, a training set and validation examples."""

    def __init__(self, model: Any, train: Examples, validation: Examples) -> None:
        self.model, self.train, self.validation = model, train, validation

    @abstractmethod
    def at(self, weights: Array) -> Slopes:
        """After a training with these weights (n,), multiplied by the examples' own."""


class InfluenceSlopes(WeightSlopes):
    """From influence at the retrained model: ∂m/∂wᵢ = −∇mᵀH⁻¹∇ℓᵢ, which at an optimum is exact.

    For boosted trees, from the derivative of leaf values at the retrained splits.
    """

    def at(self, weights: Array) -> Slopes:
        """Scores are the effect of the whole weight to first order, so that dividing by it gives the derivative."""
        retrained = self.model.retrain(self.train, weights)
        weighted = self.train.replaced(weights=weights * sample_weights(self.train))
        recipe: Attributor = LeafInfluence() if isinstance(retrained, TreeBased) else Influence(correction=None)
        scores = recipe.fit(retrained, weighted).attribute(self.validation).values.mean(axis=0)
        value = float(retrained.measure(self.validation).mean())
        return Slopes(value, scores / np.where(weights > 0, weights, np.inf))


class MetagradientSlopes(WeightSlopes):
    """Through the whole training, by exact replay (Engstrom et al. 2025)."""

    def at(self, weights: Array) -> Slopes:
        """One backward pass for the mean over the validation examples."""
        replay = self.model.replay(self.train, weights)
        trained, count = self.model.after(replay), len(self.validation)
        mean = trained.outcome_rows(self.validation, replay).sums(np.full((1, count), 1.0 / count))
        return Slopes(float(trained.measure(self.validation).mean()), replay.gradients(mean)[0])


class RetrainingSlopes(WeightSlopes):
    """From retraining with every learned weight raised and lowered, for a model without derivatives."""

    def __init__(
        self, model: Any, train: Examples, validation: Examples, free: FreeWeights, retraining: Retraining
    ) -> None:
        super().__init__(model, train, validation)
        self.free, self.retraining = free, retraining

    def at(self, weights: Array) -> Slopes:
        """Central differences; below 0 there is no weight, so that near it they are one-sided."""
        count = len(self.free.names)
        of_group = self.free.part[None] == np.arange(count)[:, None]
        raised = np.where(of_group, weights + DIFFERENCE, weights)
        lowered = np.where(of_group, np.maximum(weights - DIFFERENCE, 0.0), weights)
        tasks = [Task(weights=row) for row in (weights, *raised, *lowered)]
        try:
            results = run_tasks(self.retraining, self.model, self.train, tasks, self.validation)
        except ValueError as error:
            raise ValueError(
                f"expected a model that can be trained with weights raised and lowered by {DIFFERENCE:g}, got one that "
                f"cannot ({error}); whole groups can be left out instead, by remove(groups, queries) of a fitted "
                "uw.LeaveOneOut()"
            ) from error
        means = np.array([float(np.mean(values)) for values in results])
        widths = np.array([(up - down)[row].max() for up, down, row in zip(raised, lowered, of_group, strict=True)])
        in_groups = (means[1 : count + 1] - means[count + 1 :]) / widths
        sizes = np.bincount(self.free.part[self.free.part >= 0], minlength=count)
        return Slopes(means[0], np.where(self.free.part >= 0, (in_groups / sizes)[self.free.part], 0.0))


class LastLayerSlopes(WeightSlopes):
    """From influence on the last layer of the model as it is, with features held fixed (Ren et al. 2020).

    Raises:
        TypeError: a model without features, or whose loss is not a cross-entropy of a softmax on them.
    """

    def __init__(self, model: Any, train: Examples, validation: Examples, damping: float) -> None:
        super().__init__(model, train, validation)
        self.damping = damping
        self._layer(model, validation)  # raises before anything is trained

    def at(self, weights: Array) -> Slopes:
        """At the given model, which is not retrained."""
        return self.of(self.model, weights)

    def of(self, model: Any, weights: Array) -> Slopes:
        """At this model, with these weights (n,)."""
        own = sample_weights(self.train)
        slopes = last_layer_slopes(
            self._layer(model, self.train), weights * own, self._layer(model, self.validation), self.damping
        )
        return Slopes(float(model.measure(self.validation).mean()), slopes * own)

    @cached_property
    def _classes(self) -> NDArray[Any]:
        return class_labels(self.train, "influence on the last layer")

    def _layer(self, model: Any, examples: Examples) -> LastLayer:
        predictions = model.predict(examples)
        names = [self.train.labels.get(value, value) for value in self._classes.tolist()]
        probabilities, classes = predictions.probabilities, list(predictions.classes)
        if (
            not (isinstance(model, Embeddable) and can(model, Embeddable))
            or probabilities is None
            or examples.y is None
        ):
            raise TypeError(f'slopes="last layer" needs a classifier with features and probabilities, got {model!r}')
        places = {
            value: classes.index(key)
            for value, name in zip(self._classes.tolist(), names, strict=True)
            for key in (name, value)
            if key in classes
        }
        if any(value not in places for value in np.unique(examples.y).tolist()):
            raise TypeError(f"expected labels among the classes {classes}, got {np.unique(examples.y).tolist()}")
        positions = np.array([places[value] for value in examples.y.tolist()], dtype=np.intp)
        label = np.log(np.maximum(probabilities[np.arange(len(positions)), positions], 1e-300))
        if np.median(np.abs(model.measure(examples) - label)) > CROSS_ENTROPY:
            raise TypeError(
                'slopes="last layer" needs a measurement that is −loss of a softmax with cross-entropy, got '
                f'{model.measurement} of another loss; use slopes="metagradient"'
            )
        return LastLayer.of(model.embed(examples), probabilities, positions)

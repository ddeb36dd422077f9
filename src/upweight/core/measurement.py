"""Measurements: the number of a query whose cause the scores explain. Higher means more of the behaviour."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class LossGradient(Protocol):
    """Loss and gradient of a batch, with respect to its outputs."""

    @property
    def loss(self) -> Array:
        """The loss, (m,)."""

    @property
    def gradient(self) -> Array:
        """The gradient of the measurement, (m, K)."""


class TrainingLoss(Protocol):
    """The parts of a model's training loss that measurements need; linear models and trees implement it.

    Attributes:
        name: for people.
        unit: the unit of the loss.
        coupled: whether the classes share one probability distribution.
        pairwise: whether each output is a binary classifier for one pair of classes.
        classes: the class labels; None for numeric targets.
    """

    name: str
    unit: str
    coupled: bool
    pairwise: bool
    classes: NDArray[Any] | None

    def at(self, z: Array, targets: NDArray[Any]) -> LossGradient:
        """Loss and gradient at outputs z (m, K)."""

    def encode(self, y: NDArray[Any]) -> NDArray[Any]:
        """Labels in the form that `at` takes."""

    def class_positions(self, y: NDArray[Any]) -> NDArray[np.intp]:
        """Positions of the labels among the classes."""

    def expand(self, z: Array) -> Array:
        """The estimator's outputs (decision values or means) from z."""

    def probabilities(self, z: Array) -> Array:
        """Class probabilities (m, classes)."""


class Measurement(ABC):
    """A function of a query's outputs z (m, K) and its label."""

    needs_label = True

    @abstractmethod
    def described(self, family: TrainingLoss) -> str:
        """The measurement in words, with its unit."""

    @abstractmethod
    def value(self, family: TrainingLoss, z: Array, y: NDArray[Any] | None) -> Array:
        """The measurement, (m,) for z (m, K)."""

    def gradient(self, family: TrainingLoss, z: Array, y: NDArray[Any] | None) -> Array:
        """∂value/∂z (m, K), by central differences in output space: relative error about 1e-10 in float64."""
        out = np.empty_like(z)
        for c in range(z.shape[1]):
            h = 1e-5 * np.maximum(1.0, np.abs(z[:, c]))
            up, down = z.copy(), z.copy()
            up[:, c] += h
            down[:, c] -= h
            out[:, c] = (self.value(family, up, y) - self.value(family, down, y)) / (up[:, c] - down[:, c])
        return out


@dataclass(frozen=True)
class Loss(Measurement):
    """−loss of the query, without the regulariser: a training example with a positive score lowered the loss."""

    def described(self, family: TrainingLoss) -> str:
        """−loss, with the unit of the loss."""
        return f"−loss ({family.unit})"

    def value(self, family: TrainingLoss, z: Array, y: NDArray[Any] | None) -> Array:
        """−ℓ."""
        return -family.at(z, family.encode(_labels(y))).loss

    def gradient(self, family: TrainingLoss, z: Array, y: NDArray[Any] | None) -> Array:
        """−∂ℓ/∂z."""
        return -family.at(z, family.encode(_labels(y))).gradient


@dataclass(frozen=True)
class Margin(Measurement):
    """The margin by which the model prefers the query's label.

    log p_y − log(1 − p_y) for a joint model of the classes (Park et al. 2023, TRAK, eq. 3). For one binary classifier,
    its signed output; for one classifier per class, the output of the label minus the largest other output.
    """

    def described(self, family: TrainingLoss) -> str:
        """The margin, in log-odds or in units of the output."""
        return "margin of the label"

    def value(self, family: TrainingLoss, z: Array, y: NDArray[Any] | None) -> Array:
        """The margin of label y."""
        if family.classes is None:
            raise TypeError(
                f"a model with {family.name} has no classes and so no margin; measure the loss or a function"
            )
        position = family.class_positions(_labels(y))
        outputs = family.expand(z)
        if outputs.shape[1] == 1:
            return np.asarray(outputs[:, 0] * np.where(position == 1, 1.0, -1.0))
        if family.pairwise:
            raise TypeError(
                "one binary classifier per pair of classes has no single margin; measure the loss or a function"
            )
        label_output = np.take_along_axis(outputs, position[:, None], axis=1)[:, 0]
        others = np.where(np.arange(outputs.shape[1]) == position[:, None], -np.inf, outputs)
        if family.coupled:
            return np.asarray(label_output - np.logaddexp.reduce(others, axis=1))
        return np.asarray(label_output - others.max(axis=1))


@dataclass(frozen=True)
class Probability(Measurement):
    """The model's probability of class `of`; queries need no label."""

    of: Any
    needs_label = False

    def described(self, family: TrainingLoss) -> str:
        """The probability of this class."""
        return f"probability of {self.of!r}"

    def value(self, family: TrainingLoss, z: Array, y: NDArray[Any] | None) -> Array:
        """p(class)."""
        classes = [] if family.classes is None else family.classes.tolist()
        if self.of not in classes:
            raise ValueError(f"expected one of the classes {classes[:12]}, got {self.of!r}")
        return np.asarray(family.probabilities(z)[:, classes.index(self.of)])


@dataclass(frozen=True)
class Function(Measurement):
    """Any function `f(outputs, labels) -> (m,)` of the estimator's outputs.

    `outputs` (m, columns) is the decision function (one column for two classes) or the predicted mean; `labels` is the
    queries' y or None. The result for a query must not depend on
    other queries.
    """

    function: Callable[[Array, Any], Any]
    needs_label = False

    def described(self, family: TrainingLoss) -> str:
        """The name of the function."""
        return getattr(self.function, "__name__", "measurement").replace("<lambda>", "measurement")

    def value(self, family: TrainingLoss, z: Array, y: NDArray[Any] | None) -> Array:
        """The value of the function. Raises ValueError if it is not one number per query."""
        result = np.asarray(self.function(family.expand(z), y), dtype=np.float64)
        if result.shape != (len(z),):
            raise ValueError(f"expected the measurement to give one number per query ({len(z)},), got {result.shape}")
        return result


def _labels(y: NDArray[Any] | None) -> NDArray[Any]:
    """The labels themselves. Raises ValueError if the queries have none."""
    if y is None:
        raise ValueError(
            "the queries have no labels, which this measurement needs; pass Examples(x, y), or measure something "
            "that needs none: explainable(..., measure=Probability(of=...)) or a function of the outputs"
        )
    return y


def as_measurement(measure: Any) -> Measurement:
    """The measurement for an argument: a Measurement, a function of outputs and labels, or None for −loss."""
    if measure is None:
        return Loss()
    if isinstance(measure, type):
        raise TypeError(f"expected a measurement, got the class {measure.__name__}; write {measure.__name__}(…)")
    if isinstance(measure, Measurement):
        return measure
    if callable(measure):
        return Function(measure)
    raise TypeError(
        f"expected a measurement (Loss(), Margin(), Probability(of=…)) or a function (outputs, labels), got {measure!r}"
    )

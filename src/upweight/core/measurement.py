"""Measurements: the number of a query whose cause is asked for; higher = more of the behaviour."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class LossGradient(Protocol):
    """Loss and gradient of a batch: (m,) and (m, K)."""

    @property
    def loss(self) -> Array:
        """(m,)."""

    @property
    def gradient(self) -> Array:
        """(m, K)."""


class TrainingLoss(Protocol):
    """What a measurement needs to know of a model's training loss; `linear` and `trees` each bring theirs."""

    name: str
    unit: str  # of the loss
    coupled: bool  # whether the classes share one distribution
    pairwise: bool  # whether outputs are machines for pairs of classes
    classes: NDArray[Any] | None

    def at(self, z: Array, targets: NDArray[Any]) -> LossGradient:
        """Loss and gradient at outputs z (m, K)."""

    def encode(self, y: NDArray[Any]) -> NDArray[Any]:
        """Labels in the form that `at` takes."""

    def places(self, y: NDArray[Any]) -> NDArray[np.intp]:
        """Positions of the labels among the classes."""

    def expand(self, z: Array) -> Array:
        """The estimator's own outputs from z."""

    def probabilities(self, z: Array) -> Array:
        """Class probabilities (m, classes)."""


class Measurement(ABC):
    """A function of a query's outputs z (m, K) and its label."""

    needs_label = True

    @abstractmethod
    def described(self, family: TrainingLoss) -> str:
        """In words, with the unit."""

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
    """−loss of the query under the training loss, without the regulariser: positive scores lowered the loss."""

    def described(self, family: TrainingLoss) -> str:
        """−loss with the loss's own unit."""
        return f"−loss ({family.unit})"

    def value(self, family: TrainingLoss, z: Array, y: NDArray[Any] | None) -> Array:
        """−ℓ."""
        return -family.at(z, family.encode(_labels(y))).loss

    def gradient(self, family: TrainingLoss, z: Array, y: NDArray[Any] | None) -> Array:
        """−∂ℓ/∂z."""
        return -family.at(z, family.encode(_labels(y))).gradient


@dataclass(frozen=True)
class Margin(Measurement):
    """How far the query is on its label's side.

    log p_y − log(1 − p_y) for one joint model of the classes (Park et al. 2023, TRAK, eq. 3); for a machine the signed
    output, and for one machine per class that of the label less the largest other.
    """

    def described(self, family: TrainingLoss) -> str:
        """Log-odds or output units."""
        return "margin of the label"

    def value(self, family: TrainingLoss, z: Array, y: NDArray[Any] | None) -> Array:
        """The margin of label y."""
        if family.classes is None:
            raise TypeError(
                f"a model with {family.name} has no classes and so no margin; measure the loss or a function"
            )
        place = family.places(_labels(y))
        outputs = family.expand(z)
        if outputs.shape[1] == 1:
            return np.asarray(outputs[:, 0] * np.where(place == 1, 1.0, -1.0))
        if family.pairwise:
            raise TypeError("one machine per pair of classes has no single margin; measure the loss or a function")
        own = np.take_along_axis(outputs, place[:, None], axis=1)[:, 0]
        others = np.where(np.arange(outputs.shape[1]) == place[:, None], -np.inf, outputs)
        if family.coupled:
            return np.asarray(own - np.logaddexp.reduce(others, axis=1))
        return np.asarray(own - others.max(axis=1))


@dataclass(frozen=True)
class Probability(Measurement):
    """The model's probability of class `of`; queries need no label."""

    of: Any
    needs_label = False

    def described(self, family: TrainingLoss) -> str:
        """Which class."""
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
    queries' y or None. Each row's result may depend on that row alone.
    """

    function: Callable[[Array, Any], Any]
    needs_label = False

    def described(self, family: TrainingLoss) -> str:
        """The function's own name."""
        return getattr(self.function, "__name__", "measurement").replace("<lambda>", "measurement")

    def value(self, family: TrainingLoss, z: Array, y: NDArray[Any] | None) -> Array:
        """The function's value, checked for shape."""
        result = np.asarray(self.function(family.expand(z), y), dtype=np.float64)
        if result.shape != (len(z),):
            raise ValueError(f"expected the measurement to give one number per query ({len(z)},), got {result.shape}")
        return result


def _labels(y: NDArray[Any] | None) -> NDArray[Any]:
    if y is None:
        raise ValueError(
            "the queries have no labels, which this measurement needs; pass Examples(x, y), or measure something "
            "that needs none: explainable(..., measure=Probability(of=...)) or a function of the outputs"
        )
    return y


def as_measurement(measure: Any) -> Measurement:
    """What a user passed as `measure`: a measurement, a function of outputs and labels, or None for −loss."""
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

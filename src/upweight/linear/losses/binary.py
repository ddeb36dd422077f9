"""Losses of binary classifiers: logistic, squared hinge and smoothed hinge, for one classifier or for several."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from upweight.linear.losses.loss import Array, Derivatives, Kinks, LinearLoss, require_temperature

HINGE_TEMPERATURE = 1e-3  # the smoothed hinge is used in place of the hinge up to this temperature


class BinaryLoss(LinearLoss):
    """Σ φ(t z) over K binary classifiers, t ∈ {−1, +1}, or 0 if a classifier was not trained on the example."""

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Sum of the classifiers' losses; derivatives by the chain rule."""
        loss, first, second = self.phi(targets * z)
        trained_on = targets != 0
        return Derivatives((loss * trained_on).sum(axis=-1), first * targets, second * trained_on)

    @abstractmethod
    def phi(self, s: Array) -> tuple[Array, Array, Array]:
        """φ, φ′ and φ″ at the signed outputs s = t z."""


class LogisticLoss(BinaryLoss):
    """log(1 + exp(−t z)): two classes, or one classifier per class (one against the rest)."""

    name = "logistic loss"
    unit = "nats"

    def phi(self, s: Array) -> tuple[Array, Array, Array]:
        """Loss in nats and derivatives."""
        p = expit(-s)
        return np.logaddexp(0.0, -s), -p, p * (1.0 - p)

    def probabilities(self, z: Array) -> Array:
        """Sigmoid; for several classifiers normalised to sum to one, as in scikit-learn."""
        if self.outputs == 1:
            return np.concatenate([expit(-z), expit(z)], axis=-1)
        p = expit(z)
        return np.asarray(p / p.sum(axis=-1, keepdims=True))


class SquaredHingeLoss(BinaryLoss):
    """max(0, 1 − t z)²."""

    name = "squared hinge loss"
    is_likelihood = False
    unit = "squared hinge"

    def phi(self, s: Array) -> tuple[Array, Array, Array]:
        """Loss and (generalised) derivatives."""
        slack = np.maximum(0.0, 1.0 - s)
        return np.asarray(slack**2), -2.0 * slack, np.asarray(2.0 * (slack > 0))


class SmoothHingeLoss(BinaryLoss):
    """T·log(1 + exp((1 − t z)/T)), which tends to the hinge max(0, 1 − t z) for T → 0 (Koh & Liang 2017, §4.3).

    Args:
        outputs: number of binary classifiers.
        classes: class labels.
        temperature: T.
        pairs: (K, 2), the two class positions of each classifier; None for one against the rest.
    """

    is_likelihood = False
    has_kinks = True
    unit = "hinge"

    def __init__(
        self, outputs: int, classes: NDArray[Any] | None, temperature: float, pairs: NDArray[Any] | None = None
    ) -> None:
        super().__init__(outputs, classes)
        require_temperature(temperature)
        self.temperature = temperature
        self.name = f"hinge smoothed at temperature {temperature:g}"
        self.pairs = pairs
        self.pairwise = pairs is not None

    def sharp(self) -> SmoothHingeLoss:
        """The same hinge with so little smoothing that its optimum is nearly that of the hinge itself."""
        return SmoothHingeLoss(self.outputs, self.classes, min(self.temperature, HINGE_TEMPERATURE), self.pairs)

    def kinks(self, targets: NDArray[Any]) -> Kinks:
        """The hinge pushes an output towards its target until it has reached it."""
        forces = np.stack([np.maximum(targets, 0.0), np.minimum(targets, 0.0)], axis=1)
        return Kinks(np.asarray(targets, dtype=np.float64)[:, None], forces)

    def phi(self, s: Array) -> tuple[Array, Array, Array]:
        """Loss and derivatives at this temperature."""
        u = (1.0 - s) / self.temperature
        p = expit(u)
        return np.asarray(self.temperature * np.logaddexp(0.0, u)), -p, np.asarray(p * (1.0 - p) / self.temperature)

    def decide(self, z: Array) -> NDArray[np.intp]:
        """The class with the most votes of the pairwise classifiers; of equals, the first."""
        if self.pairs is None:
            return super().decide(z)
        votes = np.zeros((len(z), int(self.pairs.max()) + 1))
        for classifier, (first, second) in enumerate(self.pairs):
            votes[np.arange(len(z)), np.where(z[:, classifier] > 0, first, second)] += 1
        return np.asarray(votes.argmax(axis=1))

    def encode_positions(self, position: NDArray[np.intp]) -> NDArray[Any]:
        """One column per pairwise classifier: +1 for its first class, −1 for its second, 0 for other classes."""
        if self.pairs is None:
            return super().encode_positions(position)
        first, second = self.pairs.T
        return np.asarray((position[:, None] == first) * 1.0 - (position[:, None] == second) * 1.0)

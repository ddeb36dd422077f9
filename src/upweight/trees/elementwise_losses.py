"""Losses with two derivatives: gamma, Tweedie, squared log error, exponential, and soft labels.

Outputs are the first axis of every array, as in `boosting_loss.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from upweight.trees.boosting_loss import BoostingLoss, LogLinkLoss

Array = NDArray[np.float64]
MIN_SECOND = 1e-6  # XGBoost's smallest second derivative of the squared log error, and distance of z from −1


class ElementwiseLoss(BoostingLoss):
    """A loss whose outputs do not interact, given by its value and its first three derivatives."""

    @abstractmethod
    def third_derivative(self, z: Array, t: Array) -> Array:
        """The derivative of the second derivative, shaped like z."""

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """Directional derivatives of the gradient and the second derivative along dz."""
        return self.derivatives(z, t)[1] * dz, self.third_derivative(z, t) * dz


class Gamma(LogLinkLoss, ElementwiseLoss):
    """z + t exp(−z): the negative log-likelihood of a gamma distribution with mean exp(z), without its constants."""

    name = "gamma loss"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray((z + t * np.exp(-z))[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        ratio = t * np.exp(-z)
        return 1.0 - ratio, ratio

    def third_derivative(self, z: Array, t: Array) -> Array:
        """−t exp(−z)."""
        return -t * np.exp(-z)


class Tweedie(LogLinkLoss, ElementwiseLoss):
    """−t exp((1 − p) z) / (1 − p) + exp((2 − p) z) / (2 − p), for a variance of mean^p with 1 < p < 2."""

    def __init__(self, power: float = 1.5) -> None:
        super().__init__(1)
        self.power = power
        self.name = f"Tweedie loss (power {power:g})"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        p = self.power
        return np.asarray((-t * np.exp((1 - p) * z) / (1 - p) + np.exp((2 - p) * z) / (2 - p))[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        p = self.power
        by_target, by_mean = t * np.exp((1 - p) * z), np.exp((2 - p) * z)
        return by_mean - by_target, (2 - p) * by_mean - (1 - p) * by_target

    def third_derivative(self, z: Array, t: Array) -> Array:
        """(2 − p)² exp((2 − p) z) − (1 − p)² t exp((1 − p) z)."""
        p = self.power
        return np.asarray((2 - p) ** 2 * np.exp((2 - p) * z) - (1 - p) ** 2 * t * np.exp((1 - p) * z))


class SquaredLog(ElementwiseLoss):
    """½ (log(1 + z) − log(1 + t))² for targets above −1, as in XGBoost, where second derivatives are at least 10⁻⁶."""

    name = "squared log error"
    unit = "half squared log error"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray((0.5 * self._difference(z, t) ** 2)[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative, which is at least 10⁻⁶."""
        return self._difference(z, t) / self._shifted(z), np.maximum(self._second(z, t), MIN_SECOND)

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """Directional derivatives of the gradient and the second derivative along dz."""
        return self._second(z, t) * dz, self.third_derivative(z, t) * dz

    def third_derivative(self, z: Array, t: Array) -> Array:
        """(2 log((1 + z) / (1 + t)) − 3) / (1 + z)³, and 0 where the second derivative is that minimum."""
        third = (2.0 * self._difference(z, t) - 3.0) / self._shifted(z) ** 3
        return np.where(self._second(z, t) > MIN_SECOND, third, 0.0)

    def _second(self, z: Array, t: Array) -> Array:
        """(1 − log((1 + z) / (1 + t))) / (1 + z)²."""
        return np.asarray((1.0 - self._difference(z, t)) / self._shifted(z) ** 2)

    def _difference(self, z: Array, t: Array) -> Array:
        return np.asarray(np.log(self._shifted(z)) - np.log1p(t))

    @staticmethod
    def _shifted(z: Array) -> Array:
        """1 + z, at least 10⁻⁶, as in XGBoost."""
        return np.maximum(1.0 + z, MIN_SECOND)


class Exponential(ElementwiseLoss):
    """exp(∓z) for two classes: the loss of AdaBoost, in GradientBoostingClassifier. z is half the log-odds."""

    name = "exponential loss"
    unit = "exponential loss"

    def __init__(self, classes: NDArray[Any]) -> None:
        super().__init__(1, classes)

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray(np.exp(np.where(t > 0.5, -z, z))[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        sign = np.where(t > 0.5, -1.0, 1.0)
        second = np.exp(sign * z)
        return sign * second, second

    def third_derivative(self, z: Array, t: Array) -> Array:
        """∓exp(∓z)."""
        return self.derivatives(z, t)[0]

    def link(self, mean: Array) -> Array:
        """The best constant."""
        return np.asarray(0.5 * logit(mean))

    def link_slope(self, mean: Array) -> Array:
        """The derivative of `link`."""
        return np.asarray(0.5 / (mean * (1.0 - mean)))

    def probabilities(self, z: Array) -> Array:
        """Class probabilities (m, classes)."""
        p = expit(2.0 * z)
        return np.hstack([1 - p, p])


class SoftLabels(ElementwiseLoss):
    """Σ log(1 + exp(z)) − t z: the cross-entropy of targets in [0, 1], which are probabilities and not classes."""

    name = "cross-entropy of soft labels"
    unit = "nats"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray((np.logaddexp(0.0, z) - t * z).sum(axis=0))

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        p = expit(z)
        return p - t, p * (1 - p)

    def third_derivative(self, z: Array, t: Array) -> Array:
        """p(1 − p)(1 − 2p)."""
        p = expit(z)
        return np.asarray(p * (1 - p) * (1 - 2 * p))

    def encode(self, y: NDArray[Any]) -> Array:
        """Targets (n, K). Raises ValueError for labels outside [0, 1]."""
        targets = super().encode(y)
        if not ((targets >= 0) & (targets <= 1)).all():
            raise ValueError(
                f"expected labels in [0, 1] for {self.name}, got numbers from {targets.min():g} to {targets.max():g}; "
                "pass the labels that the model was fitted on"
            )
        return targets

    def link(self, mean: Array) -> Array:
        """The best constant."""
        return np.asarray(logit(mean))

    def link_slope(self, mean: Array) -> Array:
        """The derivative of `link`."""
        return np.asarray(1.0 / (mean * (1.0 - mean)))

    def mean(self, z: Array) -> Array:
        """The predicted probability."""
        return np.asarray(expit(z))

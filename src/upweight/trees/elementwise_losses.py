"""Losses of one output with two derivatives: gamma, Tweedie, Huber, pseudo-Huber, Fair, exponential, and soft labels.

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


class ElementwiseLoss(BoostingLoss):
    """A loss of one output, given by its value and its first three derivatives."""

    @abstractmethod
    def third_derivative(self, z: Array, t: Array) -> Array:
        """The derivative of the second derivative, shaped like z."""

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """Their directional derivatives along dz."""
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


class Huber(ElementwiseLoss):
    """½ r² for residuals |r| ≤ δ, and δ(|r| − ½ δ) beyond.

    Libraries sum 1 as the second derivative of an example within δ. `outside` is what they sum beyond: 1 in LightGBM,
    0 in CatBoost. Both are constant, except that an example can cross δ.
    """

    unit = "Huber loss"

    def __init__(self, delta: float = 1.0, outside: float = 1.0) -> None:
        super().__init__(1)
        self.delta, self.outside = delta, outside
        self.name = f"Huber loss (δ = {delta:g})"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        distance = np.abs(z - t)
        near = np.minimum(distance, self.delta)
        return np.asarray((0.5 * near**2 + self.delta * (distance - near))[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        residual = z - t
        second = np.where(np.abs(residual) <= self.delta, 1.0, self.outside)
        return np.clip(residual, -self.delta, self.delta), second

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """Their directional derivatives along dz. The gradient moves within δ alone."""
        return np.where(np.abs(z - t) <= self.delta, dz, 0.0), None

    def third_derivative(self, z: Array, t: Array) -> Array:
        """0 almost everywhere."""
        return np.zeros_like(z)


class PseudoHuber(ElementwiseLoss):
    """δ² (√(1 + r²/δ²) − 1) for residuals r, as in XGBoost."""

    unit = "pseudo-Huber loss"

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__(1)
        self.delta = delta
        self.name = f"pseudo-Huber loss (δ = {delta:g})"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray((self.delta**2 * (np.sqrt(self._stretch(z, t)) - 1.0))[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        stretch = self._stretch(z, t)
        return (z - t) / np.sqrt(stretch), stretch**-1.5

    def third_derivative(self, z: Array, t: Array) -> Array:
        """−3 r/δ² (1 + r²/δ²)^(−5/2)."""
        return np.asarray(-3.0 * (z - t) / self.delta**2 * self._stretch(z, t) ** -2.5)

    def _stretch(self, z: Array, t: Array) -> Array:
        """1 + r²/δ²."""
        return np.asarray(1.0 + ((z - t) / self.delta) ** 2)


class Fair(ElementwiseLoss):
    """c² (|r|/c − log(1 + |r|/c)) for residuals r, as in LightGBM."""

    unit = "Fair loss"

    def __init__(self, c: float = 1.0) -> None:
        super().__init__(1)
        self.c = c
        self.name = f"Fair loss (c = {c:g})"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        distance = np.abs(z - t) / self.c
        return np.asarray((self.c**2 * (distance - np.log1p(distance)))[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        residual = z - t
        spread = np.abs(residual) + self.c
        return self.c * residual / spread, (self.c / spread) ** 2

    def third_derivative(self, z: Array, t: Array) -> Array:
        """−2 c² sign(r) / (|r| + c)³."""
        return np.asarray(-2.0 * self.c**2 * np.sign(z - t) / (np.abs(z - t) + self.c) ** 3)


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
        """Its derivative."""
        return np.asarray(0.5 / (mean * (1.0 - mean)))

    def probabilities(self, z: Array) -> Array:
        """Class probabilities (m, classes)."""
        p = expit(2.0 * z)
        return np.hstack([1 - p, p])


class SoftLabels(ElementwiseLoss):
    """log(1 + exp(z)) − t z: the cross-entropy of targets in [0, 1], which are probabilities and not classes."""

    name = "cross-entropy of soft labels"
    unit = "nats"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray((np.logaddexp(0.0, z) - t * z)[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        p = expit(z)
        return p - t, p * (1 - p)

    def third_derivative(self, z: Array, t: Array) -> Array:
        """p(1 − p)(1 − 2p)."""
        p = expit(z)
        return np.asarray(p * (1 - p) * (1 - 2 * p))

    def encode(self, y: NDArray[Any]) -> Array:
        """Targets (n, 1). Raises ValueError for labels outside [0, 1]."""
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
        """Its derivative."""
        return np.asarray(1.0 / (mean * (1.0 - mean)))

    def mean(self, z: Array) -> Array:
        """The predicted probability."""
        return np.asarray(expit(z))

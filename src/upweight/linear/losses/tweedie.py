"""The deviance losses of generalised linear models: normal, Poisson, gamma, and the Tweedie family between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.linear.losses.loss import Array, Derivatives, LinearLoss


class TweedieLoss(LinearLoss):
    """Half the unit deviance of power p (0 normal, 1 Poisson, 2 gamma) under a log or identity link.

    Source: Jørgensen, The Theory of Dispersion Models (1997); scikit-learn's HalfTweedieLoss.
    """

    name = "half deviance"
    unit = "half deviance"

    def __init__(self, power: float, log_link: bool) -> None:
        super().__init__(1)
        self.power = power
        self.log_link = log_link
        self.has_dispersion = power != 1  # that of the Poisson distribution is 1

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss and derivatives with respect to the linear output."""
        p, y = self.power, targets
        mu = np.exp(z) if self.log_link else z
        if p == 0 and not self.log_link:
            return Derivatives(self._half_deviance(mu, y)[..., 0], mu - y, np.ones_like(mu))
        if self.log_link:
            first = mu ** (2 - p) - y * mu ** (1 - p)
            second = (2 - p) * mu ** (2 - p) - (1 - p) * y * mu ** (1 - p)
        else:
            first = mu ** (1 - p) - y * mu**-p
            second = (1 - p) * mu**-p + p * y * mu ** (-p - 1)
        return Derivatives(self._half_deviance(mu, y)[..., 0], first, second)

    def _half_deviance(self, mu: Array, y: Array) -> Array:
        p = self.power
        if p == 0:
            return np.asarray(0.5 * (y - mu) ** 2)
        if p == 1:
            return np.where(y > 0, y * np.log(np.where(y > 0, y, 1.0) / mu), 0.0) - y + mu
        if p == 2:
            return y / mu - np.log(y / mu) - 1.0
        constant_term = np.maximum(y, 0.0) ** (2 - p) / ((1 - p) * (2 - p))
        return constant_term - y * mu ** (1 - p) / (1 - p) + mu ** (2 - p) / (2 - p)

    def expected(self) -> TweedieLoss:
        """The loss with the Fisher information (dμ/dz)²/μ^p, which a canonical link makes the second derivative."""
        is_canonical = self.power == (1 if self.log_link else 0)
        return self if is_canonical else ExpectedTweedieLoss(self.power, self.log_link)

    def residuals(self, z: Array, targets: NDArray[Any]) -> Array:
        """Target minus predicted mean."""
        return np.asarray(targets - self.expand(z))

    def expand(self, z: Array) -> Array:
        """The predicted mean."""
        return np.exp(z) if self.log_link else z


class ExpectedTweedieLoss(TweedieLoss):
    """The same loss and gradient, with the expected second derivative: the weights of iterated least squares."""

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss and gradient as they are, and the Fisher information."""
        observed, mu = super().at(z, targets), self.expand(z)
        information = mu ** (2 - self.power) if self.log_link else mu**-self.power
        return Derivatives(observed.loss, observed.gradient, information)

    def expected(self) -> TweedieLoss:
        """Itself."""
        return self

"""The ε-insensitive losses of support vector regression: squared, and smoothed at a temperature."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from upweight.linear.losses.loss import Array, Derivatives, Kinks, LinearLoss, require_temperature


class SquaredEpsilonLoss(LinearLoss):
    """max(0, |z − t| − ε)².

    Args:
        epsilon: ε.
    """

    name = "squared ε-insensitive loss"
    unit = "squared ε-insensitive"
    is_likelihood = False

    def __init__(self, epsilon: float) -> None:
        super().__init__(1)
        self.epsilon = epsilon

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss and (generalised) derivatives."""
        difference = z - targets
        excess = np.maximum(np.abs(difference) - self.epsilon, 0.0)
        return Derivatives((excess**2).sum(axis=-1), 2.0 * excess * np.sign(difference), 2.0 * (excess > 0))


class SmoothEpsilonLoss(LinearLoss):
    """T·log(1 + e^((r − ε)/T)) + T·log(1 + e^((−r − ε)/T)) of r = z − t, which tends to max(0, |r| − ε) for T → 0.

    Args:
        epsilon: ε.
        temperature: T, in the unit of the target.
    """

    has_kinks = True
    unit = "ε-insensitive"
    is_likelihood = False

    def __init__(self, epsilon: float, temperature: float) -> None:
        super().__init__(1)
        require_temperature(temperature)
        self.epsilon = epsilon
        self.temperature = temperature
        self.name = f"ε-insensitive loss smoothed at temperature {temperature:.3g}"

    def kinks(self, targets: NDArray[Any]) -> Kinks:
        """Kinks at both ends of the tube; without a tube they are one."""
        if self.epsilon == 0:
            return Kinks(targets[:, None], np.tile([1.0, -1.0], (len(targets), 1)))
        places = np.stack([targets - self.epsilon, targets + self.epsilon], axis=1)
        return Kinks(places, np.tile([1.0, 0.0, -1.0], (len(targets), 1)))

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss and derivatives at this temperature."""
        t, difference = self.temperature, z - targets
        above, below = (difference - self.epsilon) / t, (-difference - self.epsilon) / t
        p, q = expit(above), expit(below)
        loss = t * (np.logaddexp(0.0, above) + np.logaddexp(0.0, below)).sum(axis=-1)
        return Derivatives(loss, p - q, (p * (1.0 - p) + q * (1.0 - q)) / t)

"""The loss of quantile regression, smoothed at a temperature."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from upweight.linear.losses.loss import Array, Derivatives, Kinks, LinearLoss, require_temperature


class SmoothPinballLoss(LinearLoss):
    """T·log(1 + e^(r/T)) − (1 − q) r of r = t − z, which tends to max(q r, (q − 1) r) for T → 0.

    Args:
        quantile: q.
        temperature: T, in the unit of the target.
    """

    has_kinks = True
    unit = "pinball loss"
    is_likelihood = False

    def __init__(self, quantile: float, temperature: float) -> None:
        super().__init__(1)
        require_temperature(temperature)
        self.quantile = quantile
        self.temperature = temperature
        self.name = f"pinball loss smoothed at temperature {temperature:.3g}"

    def kinks(self, targets: NDArray[Any]) -> Kinks:
        """One kink, at the target."""
        return Kinks(targets[:, None], np.tile([self.quantile, self.quantile - 1.0], (len(targets), 1)))

    def sharp_loss(self, z: Array, targets: NDArray[Any]) -> Array:
        """The loss that this one smooths, of outputs and targets (…, 1): (…,)."""
        residual = targets - z
        return np.asarray(np.maximum(self.quantile * residual, (self.quantile - 1.0) * residual).sum(axis=-1))

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss and derivatives at this temperature."""
        t, residual = self.temperature, targets - z
        p = expit(residual / t)
        loss = (t * np.logaddexp(0.0, residual / t) - (1.0 - self.quantile) * residual).sum(axis=-1)
        return Derivatives(loss, (1.0 - self.quantile) - p, p * (1.0 - p) / t)

"""The Huber loss with a scale: squared for small residuals, linear for large ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.linear.losses.loss import Array, Derivatives, LinearLoss


class HuberLoss(LinearLoss):
    """σ H((t − z)/σ) with H(u) = u² for |u| < ε, else 2ε|u| − ε².

    Training minimises the sum of σ + σ H over the parameters and the scale σ together.

    Args:
        epsilon: ε.
        scale: σ.
    """

    name = "Huber loss"
    unit = "Huber loss at the scale of the fit"
    is_likelihood = False

    def __init__(self, epsilon: float, scale: float) -> None:
        super().__init__(1)
        self.epsilon = epsilon
        self.scale = scale

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss and derivatives at this scale."""
        u = (z - targets) / self.scale
        inside = np.abs(u) < self.epsilon
        loss = np.where(inside, u**2, 2.0 * self.epsilon * np.abs(u) - self.epsilon**2)
        slope = np.where(inside, 2.0 * u, 2.0 * self.epsilon * np.sign(u))
        return Derivatives(self.scale * loss.sum(axis=-1), slope, 2.0 * inside / self.scale)

    def scale_derivatives(self, z: Array, targets: NDArray[Any]) -> tuple[Array, Array, Array]:
        """∂/∂σ, ∂²/∂σ² and ∂²/∂σ∂z of every example's σ + σ H, each (n,) for z (n,)."""
        u = (z - targets) / self.scale
        inside = np.abs(u) < self.epsilon
        first = 1.0 - np.where(inside, u**2, self.epsilon**2)
        return first, np.where(inside, 2.0 * u**2, 0.0) / self.scale, np.where(inside, -2.0 * u, 0.0) / self.scale

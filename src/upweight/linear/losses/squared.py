"""The squared loss, of least squares and ridge regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.linear.losses.loss import Array, Derivatives, LinearLoss


class SquaredLoss(LinearLoss):
    """½ Σ (z − t)²: least squares, ridge, and ridge on ±1 labels."""

    name = "squared loss"
    unit = "half squared error"
    is_quadratic = True
    has_dispersion = True

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss and derivatives; the second derivative is the identity."""
        difference = z - targets
        return Derivatives(0.5 * (difference**2).sum(axis=-1), difference, np.ones_like(z))

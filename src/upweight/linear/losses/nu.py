"""The losses of ν-support vector machines: hinge and ε-insensitive, at the margin or the tube that training found."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.linear.losses.binary import SmoothHingeLoss
from upweight.linear.losses.epsilon_insensitive import SmoothEpsilonLoss
from upweight.linear.losses.loss import Array


class NuHingeLoss(SmoothHingeLoss):
    """The smoothed hinge of ν-classification: training also chooses the margin, by which outputs are then divided.

    Args:
        classes, temperature, pairs: as for the smoothed hinge; `pairs` for more than two classes.
        nu: ν, the share of all weights that the forces of the examples sum to, half of it in each class.
        margins: (K,) the margin of every classifier, which is the l2 of its outputs after the division.
    """

    def __init__(
        self, classes: NDArray[Any], temperature: float, pairs: NDArray[Any] | None, nu: float, margins: Array
    ) -> None:
        super().__init__(len(margins), classes, temperature, pairs)
        self.nu = nu
        self.margins = margins

    def metric(self) -> Array:
        """The l2 of every classifier, in units of their mean."""
        return np.diag(self.margins / self.margins.mean())


class NuEpsilonLoss(SmoothEpsilonLoss):
    """The smoothed ε-insensitive loss of ν-regression, at the ε that training found.

    Args:
        epsilon, temperature: as for the smoothed ε-insensitive loss.
        nu: ν, the share of all weights that the sizes of the forces sum to.
    """

    def __init__(self, epsilon: float, temperature: float, nu: float) -> None:
        super().__init__(epsilon, temperature)
        self.nu = nu

"""Steps of a weight ascent: Adam with a bound on the weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FLOOR = 1e-3  # the smallest weight during the ascent, because an example of weight 0 has no slope
MEMORY = (0.9, 0.999)  # of Adam's two moving means


class WeightSteps:
    """Adam (Kingma & Ba 2015) for a maximum, with weights between `FLOOR` and `largest`.

    The constant in Adam's denominator is the root mean square slope of the first step: examples whose slopes are small
    beside it keep their weights, instead of drifting as far as all others.
    """

    def __init__(self, rate: float, largest: float) -> None:
        self.rate, self.largest = rate, largest
        self._count, self._scale = 0, 0.0
        self._mean: Array | float = 0.0
        self._square: Array | float = 0.0

    def taken(self, weights: Array, slopes: Array) -> Array:
        """The weights after one step along these slopes."""
        self._count += 1
        if self._count == 1:
            self._scale = float(np.sqrt(np.mean(slopes**2))) or 1.0
        first, second = MEMORY
        self._mean = first * self._mean + (1 - first) * slopes
        self._square = second * self._square + (1 - second) * slopes**2
        mean = self._mean / (1 - first**self._count)
        root = np.sqrt(self._square / (1 - second**self._count))
        return np.clip(weights + self.rate * mean / (root + self._scale), FLOOR, self.largest)


def final_weights(weights: Array) -> Array:
    """The weights with 0 in place of those that reached the floor."""
    return np.where(weights <= FLOOR, 0.0, weights)

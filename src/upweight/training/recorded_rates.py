"""The learning rates of the steps that a trajectory recorded, by parameter group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RecordedRates:
    """Learning rates of every step.

    Attributes:
        mean: (steps,), the mean over the numbers that the optimiser trains.
        groups: (steps, groups), 0 for groups that did not exist yet; None if groups have the same rates.
    """

    mean: Array
    groups: Array | None = None

    def of_group(self, number: int) -> Array:
        """The learning rates of a parameter group, (steps,)."""
        return self.mean if self.groups is None else self.groups[:, number]


def mean_rate(rates: Sequence[float], sizes: Sequence[int]) -> float:
    """The mean of the groups' learning rates over the numbers in them; the rate itself if all are equal."""
    if len(set(rates)) == 1:
        return rates[0]
    return float(np.average(rates, weights=np.maximum(sizes, 1e-300)))


def join(means: Sequence[Array], groups: Sequence[Array | None]) -> RecordedRates:
    """The rates of consecutive parts of a training; `groups` are (steps, groups of the part), None if they agree."""
    mean = np.concatenate(means) if means else np.empty(0)
    if all(part is None for part in groups):
        return RecordedRates(mean)
    count = max(part.shape[1] for part in groups if part is not None)
    parts = [
        np.repeat(rates[:, None], count, axis=1) if part is None else np.pad(part, ((0, 0), (0, count - part.shape[1])))
        for rates, part in zip(means, groups, strict=True)
    ]
    return RecordedRates(mean, np.concatenate(parts))

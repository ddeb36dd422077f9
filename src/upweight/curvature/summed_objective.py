"""SummedObjective: a network's training objective on the summed scale, as every curvature reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.weights import example_counts, require_any_weight
from upweight.gradients.network import Network

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SummedObjective:
    """The matrix Σᵢ weightsᵢ Cᵢ + (ridge + damping)·I, where Cᵢ is the curvature of one example's loss.

    Attributes:
        network, train: whose loss, on what: the examples of weight above 0 alone.
        weights: (n,) sample weights.
        ridge: the objective's l2 on this scale.
        damping: what is added beyond it, on this scale.
        damping_from: where the damping came from, in words.
        matched: whether the damping is matched to the time that training took.
    """

    network: Network
    train: Examples
    weights: Array
    ridge: float
    damping: float
    damping_from: str = ""
    matched: bool = False

    @classmethod
    def of(cls, network: Network, train: Examples, weights: Array, ridge: float) -> SummedObjective:
        """Without damping, on what weighs anything: examples of weight 0 have no part in any curvature."""
        require_any_weight(train)
        counted = np.flatnonzero(weights)
        if len(counted) < len(train):
            train, weights = train.take(counted), weights[counted]
        return cls(network, train, weights, ridge, 0.0)

    @property
    def copies(self) -> Array:
        """(n,) how many examples each counts for where examples are counted."""
        return example_counts(self.weights)

    @property
    def shift(self) -> float:
        """ridge + damping."""
        return self.ridge + self.damping

    @property
    def mean_damping(self) -> float:
        """The damping on the scale of the mean loss, as users give it."""
        return float(self.damping / self.weights.sum())

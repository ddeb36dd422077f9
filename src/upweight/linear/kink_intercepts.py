"""The intercepts of models with kinks in their loss: each belongs to a group of examples, whose forces balance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Intercepts:
    """Intercepts without a penalty, each of a group of the examples.

    Attributes:
        members: (g, n) 1 for the examples whose outputs have the intercept, else 0.
        shares: (g,) the sum of the forces of a group, in the sum of all weights: 0 for an ordinary intercept.
    """

    members: Array
    shares: Array

    @classmethod
    def common(cls, examples: int, count: int = 1) -> Intercepts:
        """One intercept of all examples, or none (`count` 0)."""
        return cls(np.ones((count, examples)), np.zeros(count))

    def excess(self, forces: Array, weights: Array) -> Array:
        """How much the forces of each group exceed their sum at the optimum, (g,)."""
        return np.asarray(self.members @ forces - self.shares * weights.sum())

    def determined(self, at_kink: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Groups that have one of these examples, whose output at its kink determines the intercept, (g,)."""
        return np.asarray(self.members[:, at_kink].any(axis=1))

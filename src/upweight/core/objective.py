"""How a training objective combines the losses of examples, which decides what removing an example means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Objective:
    """How the training objective combines losses, which decides what removing an example means.

    `sum`: Σ wᵢℓᵢ + l2/2 ‖θ‖² (scikit-learn's C-type models): the regulariser stays when an example is removed.
    `mean`: Σ wᵢℓᵢ / Σ wᵢ + l2/2 ‖θ‖² (Koh & Liang, PyTorch): the mean is renormalised, so an example takes its share of
    the regulariser along, and its row carries the gradient of the regulariser.
    `fixed`: Σ wᵢℓᵢ / n + l2/2 ‖θ‖² with n as before any removal: the mean is not renormalised, and the regulariser
    stays.

    An l1, in place of or beside the l2, adds l1 Σ|θⱼ| over the parameters that the regulariser includes, on the same
    scale.
    """

    reduction: Literal["sum", "mean", "fixed"]
    l2: float = 0.0
    l1: float = 0.0

    def ridge(self, weights: NDArray[np.float64]) -> float:
        """l2 on the scale of Σ wᵢℓᵢ, for these weights (n,) of the whole training set."""
        return self.l2 * {"sum": 1.0, "mean": float(weights.sum()), "fixed": float(len(weights))}[self.reduction]

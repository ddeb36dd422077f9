"""The identity as curvature, with which influence is an inner product of gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import Curvature, Solved
from upweight.core.rows import Rows
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.summed_objective import SummedObjective


class FittedIdentity(Curvature):
    """The identity matrix. Scores are −∇m·∇ℓ, known as GradDot, or TracIn of one checkpoint (Pruthi et al. 2020).

    Their unit is RANK.
    """

    def __init__(self, summed: SummedObjective) -> None:
        self.summed = summed

    def matvec(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """The vectors themselves."""
        return vectors

    def solve(self, rows: Rows) -> Solved:
        """The rows themselves."""
        return Solved(rows, 0.0, 0, True)

    def state(self) -> SavedState:
        """The name of the curvature alone."""
        return self.summed.saved_state(self, NOTHING_SAVED)

    @property
    def calibrated(self) -> bool:
        """False: gradients have no unit of effect."""
        return False

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Kind and damping; there is nothing to solve."""
        return {"curvature": "identity", "solver": "none", "damping": 0.0, "damping_from": self.summed.damping_from}

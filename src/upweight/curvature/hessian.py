"""The Hessian of a network's training objective, with a solver."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import Curvature, Solved
from upweight.core.curvature_recipes import CG, Direct, Hessian
from upweight.core.rows import Rows
from upweight.curvature.early_stopping import earlier_gradients
from upweight.curvature.operators import HessianOperator
from upweight.curvature.solvers import prepare
from upweight.curvature.solvers.inverse import Inverse
from upweight.curvature.summed_objective import SummedObjective

Array = NDArray[np.float64]
MAX_DENSE_PARAMETERS = 3000  # parameters up to which the matrix is made without being asked for


@final
class FittedHessian(Curvature):
    """Σᵢ wᵢ ∇²ℓᵢ + ridge + damping (Koh & Liang 2017).

    Away from a minimum it has negative eigenvalues; the solver reports what it met of them, and the direct one adds
    damping until the matrix can be inverted.

    Args:
        summed: the objective.
        recipe: with its solver; None takes the direct one for up to 3,000 parameters, then conjugate gradients.
        damping_from: where the damping came from, in words.
    """

    def __init__(self, summed: SummedObjective, recipe: Hessian, damping_from: str) -> None:
        self.summed, self.damping_from = summed, damping_from
        operator = HessianOperator(summed)
        solver = recipe.solver
        if solver is None:
            solver = Direct() if operator.size <= MAX_DENSE_PARAMETERS else CG(tolerance=1e-4, steps=200)
        self._inverse = Inverse(prepare(operator, solver))

    def matvec(self, vectors: Array) -> Array:
        """(H + λ) v for vectors (k, parameters), λ as far as the solver raised it."""
        return self._inverse.matvec(vectors)

    def solve(self, rows: Rows) -> Solved:
        """(H + λ)⁻¹ rows."""
        return self._inverse.solve(rows)

    def earlier(self, rows: Rows) -> tuple[float, Rows] | None:
        """Where the damping is matched to the time of the training."""
        return earlier_gradients(self.summed, rows)

    @property
    def calibrated(self) -> bool:
        """True without added damping: the objective's own curvature."""
        return self._inverse.shift <= self.summed.ridge

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Kind, solver, size, damping (mean scale) and its origin, and what was met."""
        raised = self._inverse.shift > self.summed.shift
        return {
            "curvature": "exact Hessian of the training loss",
            "solver": self._inverse.name,
            "parameters": self.summed.network.size,
            "damping": (self._inverse.shift - self.summed.ridge) / float(self.summed.weights.sum()),
            "damping_from": self.damping_from + (", raised until the Hessian could be inverted" if raised else ""),
            "coverage": 1.0,
            "warnings": self._inverse.warnings,
        }

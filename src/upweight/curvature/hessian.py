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


@final
class FittedHessian(Curvature):
    """Σᵢ wᵢ ∇²ℓᵢ + ridge + damping (Koh & Liang 2017).

    Away from a minimum it has negative eigenvalues. The solver reports those it met; the direct solver adds damping
    until the matrix can be inverted.

    Args:
        summed: the objective.
        recipe: names the solver; None is the direct one for up to 3,000 parameters, then conjugate gradients.
        damping_from: where the damping came from, as a phrase.
    """

    def __init__(self, summed: SummedObjective, recipe: Hessian, damping_from: str) -> None:
        self.summed, self.damping_from = summed, damping_from
        operator = HessianOperator(summed)
        solver = recipe.solver
        if solver is None:
            small = operator.size <= summed.limits.dense_parameters
            solver = Direct() if small else CG(tolerance=1e-4, steps=200)
        self._inverse = Inverse(prepare(operator, solver))

    def matvec(self, vectors: Array) -> Array:
        """(H + λ) v for vectors (k, parameters); λ includes what the solver added."""
        return self._inverse.matvec(vectors)

    def solve(self, rows: Rows) -> Solved:
        """(H + λ)⁻¹ rows."""
        return self._inverse.solve(rows)

    def earlier(self, rows: Rows) -> tuple[float, Rows] | None:
        """What gradients were earlier in the training; None unless the damping is matched to the training time."""
        return earlier_gradients(self.summed, rows)

    @property
    def calibrated(self) -> bool:
        """True without added damping: then this is the objective's own curvature."""
        return self._inverse.shift <= self.summed.ridge

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Kind, solver, size, damping (of the mean loss) and its origin, and warnings of the solver."""
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

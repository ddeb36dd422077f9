"""The Hessian of a network's training objective, with a solver."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature_recipes import CG, Direct, Hessian
from upweight.core.rows import Rows
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.ekfac import MAX_FACTORED_LEVERAGE
from upweight.curvature.inverted import InvertedCurvature
from upweight.curvature.leverage import SavedSlopes, correct_leverage
from upweight.curvature.operators import HessianOperator
from upweight.curvature.solvers import prepare
from upweight.curvature.solvers.direct import CholeskySolver
from upweight.curvature.solvers.inverse import Inverse
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.outputs import NoOutputsError

Array = NDArray[np.float64]
DEFAULT_CG = CG(tolerance=1e-4, steps=200)


@final
class FittedHessian(InvertedCurvature):
    """Σᵢ wᵢ ∇²ℓᵢ + ridge + damping (Koh & Liang 2017).

    Away from a minimum it has negative eigenvalues. The solver reports those it met; the direct solver adds damping
    until the matrix can be inverted.

    Args:
        summed: the objective.
        recipe: names the solver; None is the direct one for up to 3,000 parameters, then conjugate gradients.
        damping_from: where the damping came from, as a phrase.
    """

    kind, matrix = "exact Hessian of the training loss", "Hessian"

    def __init__(
        self, summed: SummedObjective, recipe: Hessian, damping_from: str, saved: SavedState = NOTHING_SAVED
    ) -> None:
        self.summed, self.damping_from = summed, damping_from
        operator = HessianOperator(summed)
        solver = recipe.solver
        if solver is None:
            small = operator.size <= summed.limits.dense_parameters
            solver = Direct() if small else DEFAULT_CG
        self.inverse: Inverse = Inverse(prepare(operator, solver, saved.part("inverse")))
        self._leverage = SavedSlopes(saved)

    def corrected(self, rows: Rows) -> Rows | None:
        """Rows with the leverage correction, in which an example takes its Gauss–Newton part out of the Hessian.

        None without a factorisation, and if the loss is not a function of one output of the net.
        """
        if not isinstance(self.inverse.solver, CholeskySolver):
            return None
        try:
            return self._leverage.corrected(
                rows, lambda: correct_leverage(self.summed, rows, self.inverse, MAX_FACTORED_LEVERAGE)
            )
        except NoOutputsError:
            return None

    def _saved_slopes(self) -> dict[str, Array]:
        return self._leverage.arrays()

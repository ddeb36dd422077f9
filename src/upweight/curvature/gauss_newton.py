"""The Gauss–Newton matrix of a network's training objective, with a solver."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import Curvature, Solved
from upweight.core.curvature_recipes import CG, Direct, GaussNewton, Nystrom
from upweight.core.rows import Rows
from upweight.curvature.early_stopping import earlier_gradients
from upweight.curvature.ekfac import FittedEKFAC
from upweight.curvature.leverage import correct_leverage
from upweight.curvature.operators import GaussNewtonOperator
from upweight.curvature.solvers import prepare
from upweight.curvature.solvers.cg import ConjugateGradients
from upweight.curvature.solvers.direct import MAX_MATRIX_PARAMETERS, CholeskySolver
from upweight.curvature.solvers.dual import DualForm
from upweight.curvature.solvers.inverse import Inverse
from upweight.curvature.solvers.nystrom import NystromSolver
from upweight.curvature.solvers.roots import MAX_HESSIAN_NUMBERS, Roots
from upweight.curvature.summed_objective import SummedObjective

Array = NDArray[np.float64]
MAX_DENSE_PARAMETERS = 3000  # parameters up to which the matrix is made without being asked for
MAX_DUAL_ROWS = 8000  # rows of the dual form at most: its matrix takes 512 MB
DEFAULT_CG = CG(tolerance=1e-3, steps=30)
SKETCH_RANK = 200  # of the sketch that preconditions: with it a third of EK-FAC's steps, and they end
MAX_SKETCH_NUMBERS = 1 << 27  # numbers that the sketch may take: 512 MB in float32


@final
class FittedGaussNewton(Curvature):
    """Σᵢ wᵢ Jᵢᵀ Λᵢ Jᵢ + ridge + damping (Schraudolph 2002; as curvature of influence: Bae et al. 2022).

    Args:
        summed: the objective.
        recipe: with its solver. None takes the direct one for up to 3,000 parameters or 4,000 examples, then
            conjugate gradients, preconditioned by a Nyström sketch of rank 200 (by EK-FAC where that has no room).
            `Direct()` makes the matrix of the parameters for up to 3,000 of them, then the dual one of examples ×
            outputs, which needs no parameter-sized matrix or vector.
        damping_from: where the damping came from, in words.

    Raises:
        NoOutputsError: the loss is not a function of one output of the net.
        ValueError: `Direct()` for a net and a data set that are both too large for it.
    """

    def __init__(self, summed: SummedObjective, recipe: GaussNewton, damping_from: str) -> None:
        self.summed, self.damping_from = summed, damping_from
        operator = GaussNewtonOperator(summed)
        solver = recipe.solver
        if solver is None:
            # A trained net is sure of most examples: the dual form has about two directions for each.
            fits = operator.size <= MAX_DENSE_PARAMETERS or 2 * len(summed.train) <= MAX_DUAL_ROWS
            solver = Direct() if fits else DEFAULT_CG
        self._inverse: Inverse | DualForm
        if isinstance(solver, CG):
            self._inverse = Inverse(_preconditioned(operator, solver))
        elif isinstance(solver, Direct) and operator.size > MAX_DENSE_PARAMETERS:
            self._inverse = _direct(operator, or_cg=recipe.solver is None)
        else:
            self._inverse = Inverse(prepare(operator, solver))

    def matvec(self, vectors: Array) -> Array:
        """(G + λ) v for vectors (k, parameters)."""
        return self._inverse.matvec(vectors)

    def solve(self, rows: Rows) -> Solved:
        """(G + λ)⁻¹ rows; in the dual form they are lazy."""
        return self._inverse.solve(rows)

    def corrected(self, rows: Rows) -> Rows | None:
        """Exactly, from the factorisation; None where there is none."""
        if isinstance(self._inverse, DualForm):
            return self._inverse.corrected(rows)
        if isinstance(self._inverse.solver, CholeskySolver):
            return correct_leverage(self.summed, rows, self._inverse)
        return None

    def earlier(self, rows: Rows) -> tuple[float, Rows] | None:
        """Where the damping is matched to the time of the training."""
        return earlier_gradients(self.summed, rows)

    @property
    def calibrated(self) -> bool:
        """True without added damping: the objective's own curvature, with the net taken as linear in its parameters."""
        return self._inverse.shift <= self.summed.ridge

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Kind, solver, size, damping (mean scale) and its origin, and what was met."""
        raised, inverse = self._inverse.shift > self.summed.shift, self._inverse
        correlation = {"damping_rank_correlation": inverse.rank_correlation} if isinstance(inverse, DualForm) else {}
        return {
            "curvature": "Gauss–Newton matrix of the training loss",
            "solver": self._inverse.name,
            "parameters": self.summed.network.size,
            "damping": (self._inverse.shift - self.summed.ridge) / float(self.summed.weights.sum()),
            "damping_from": self.damping_from + (", raised until the matrix could be inverted" if raised else ""),
            **correlation,
            "coverage": 1.0,
            "warnings": self._inverse.warnings,
        }


def _preconditioned(operator: GaussNewtonOperator, recipe: CG) -> ConjugateGradients:
    """With a Nyström sketch while one of some rank fits, with EK-FAC beyond; neither has an inverse without a shift."""
    if operator.shift <= 0:
        return ConjugateGradients(operator, recipe)
    if min(SKETCH_RANK, operator.size) * operator.size <= MAX_SKETCH_NUMBERS:
        sketch = NystromSolver(operator, Nystrom(rank=SKETCH_RANK))
        return ConjugateGradients(operator, recipe, sketch.precondition, sketch.name)
    factored = FittedEKFAC(operator.summed)
    return ConjugateGradients(operator, recipe, lambda blocks: factored.inverse(dict(blocks)), "EK-FAC")


def _direct(operator: GaussNewtonOperator, or_cg: bool) -> Inverse | DualForm:
    """The dual form where its matrix fits, else the matrix of the parameters, else (if that will do) CG."""
    n, each = len(operator.summed.train), operator.outputs_per_example
    rows = f"more than {MAX_DUAL_ROWS:,}"
    if n * each**2 <= MAX_HESSIAN_NUMBERS:
        roots = Roots(operator)
        if len(roots) <= MAX_DUAL_ROWS:
            return DualForm(roots)
        rows = f"{len(roots):,}"
    if or_cg:
        return Inverse(_preconditioned(operator, DEFAULT_CG))
    if operator.size <= MAX_MATRIX_PARAMETERS:
        return Inverse(prepare(operator, Direct()))
    raise ValueError(
        f"a direct solver has no room for {operator.size:,} parameters (at most {MAX_MATRIX_PARAMETERS:,}), "
        f"nor its dual form for {rows} directions of {n:,} examples (at most {MAX_DUAL_ROWS:,}); use solver=CG()"
    )

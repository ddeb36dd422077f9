"""The Gauss–Newton matrix of a network's training objective, with a solver."""

from __future__ import annotations

from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from upweight.core.curvature_recipes import CG, Direct, GaussNewton, Nystrom
from upweight.core.rows import Rows
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.ekfac import FittedEKFAC
from upweight.curvature.inverted import InvertedCurvature
from upweight.curvature.leverage import SavedSlopes, correct_leverage
from upweight.curvature.linear_head import is_linear_head
from upweight.curvature.operators import GaussNewtonOperator, HessianOperator
from upweight.curvature.optimum import NONE_AT_OPTIMUM
from upweight.curvature.solvers import prepare
from upweight.curvature.solvers.algebra import standard_normal, to_blocks
from upweight.curvature.solvers.cg import ConjugateGradients
from upweight.curvature.solvers.direct import CholeskySolver
from upweight.curvature.solvers.dual import DualForm
from upweight.curvature.solvers.inverse import Inverse
from upweight.curvature.solvers.nystrom import NystromSolver
from upweight.curvature.solvers.roots import Roots
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.functional import SecondDerivativeError
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]
CLOSE_TO_HESSIAN = 0.2  # relative residual, up to which influences by the Gauss–Newton matrix have the size of effects
NOT_THE_HESSIAN = (
    "The Hessian of this net is not close to its Gauss–Newton matrix, so scores are a ranking. At an optimum, "
    "curvature=Hessian() gives effects."
)
DEFAULT_CG = CG(tolerance=1e-3, steps=30)


@final
class FittedGaussNewton(InvertedCurvature):
    """Σᵢ wᵢ Jᵢᵀ Λᵢ Jᵢ + ridge + damping (Schraudolph 2002; as curvature of influence: Bae et al. 2022).

    Args:
        summed: the objective.
        recipe: names the solver. None is the direct one for up to 3,000 parameters (8,000 if the net is linear in
            them) or 4,000 examples, then conjugate gradients, preconditioned by a Nyström sketch of rank 200, or by
            EK-FAC if the sketch is too large.
            `Direct()` assembles the matrix of the parameters for up to 3,000 of them. Beyond that it assembles the dual
            matrix of examples × outputs, which needs no parameter-sized matrix or vector.
        damping_from: where the damping came from, as a phrase.

    Raises:
        NoOutputsError: the loss is not a function of one output of the net.
        ValueError: `Direct()` is requested for a net and a data set that are both too large for it.
    """

    kind, matrix = "Gauss–Newton matrix of the training loss", "matrix"

    def __init__(
        self, summed: SummedObjective, recipe: GaussNewton, damping_from: str, saved: SavedState = NOTHING_SAVED
    ) -> None:
        self.summed, self.damping_from = summed, damping_from
        self._leverage = SavedSlopes(saved)
        operator = GaussNewtonOperator(summed)
        solver, limits = recipe.solver, summed.limits
        inverse, is_head = saved.part("inverse"), False
        if solver is None:
            # A trained net is sure of most examples: the dual form has about two directions for each.
            fits = operator.size <= limits.dense_parameters or 2 * len(summed.train) <= limits.dual_rows
            is_head = not fits and operator.size <= limits.head_parameters and is_linear_head(summed)
            is_head = is_head and (not inverse or "factor" in inverse.arrays)  # earlier versions saved a sketch
            solver = Direct() if fits or is_head else DEFAULT_CG
        self.inverse: Inverse | DualForm
        if saved.facts.get("is_dual"):
            self.inverse = DualForm(Roots(operator, _dual_share(summed), inverse.part("roots")), inverse)
            return
        operator.require_second_derivatives()
        if isinstance(solver, CG):
            self.inverse = Inverse(_preconditioned(operator, solver, inverse))
        elif isinstance(solver, Direct) and operator.size > limits.dense_parameters and not is_head:
            self.inverse = _direct(operator, recipe.solver is None, inverse)
        else:
            self.inverse = Inverse(prepare(operator, solver, inverse))

    def corrected(self, rows: Rows) -> Rows | None:
        """Rows with the exact leverage correction, from the factorisation; None without a factorisation."""
        if isinstance(self.inverse, DualForm):
            return self.inverse.corrected(rows)
        if isinstance(self.inverse.solver, CholeskySolver):
            inverse = self.inverse
            return self._leverage.corrected(rows, lambda: correct_leverage(self.summed, rows, inverse))
        return None

    @property
    def calibrated(self) -> bool:
        """True without added damping where the Hessian is close to the Gauss–Newton matrix."""
        return super().calibrated and self.distance_to_hessian <= CLOSE_TO_HESSIAN

    @cached_property
    def distance_to_hessian(self) -> float:
        """‖(H + shift) x − v‖ / ‖v‖ for a random v and x = (G + shift)⁻¹ v; 0 if torch cannot multiply with H."""
        network = self.summed.network
        v = standard_normal(network, 1, torch.Generator().manual_seed(0))
        x = self.solve(TensorRows(network, to_blocks(network, v))).rows.dense()
        try:
            product = HessianOperator(self.summed).product(network.split(x))
        except (SecondDerivativeError, RuntimeError):
            return 0.0
        target = v.double().cpu().numpy()
        return float(np.linalg.norm(network.join(product) + self.inverse.shift * x - target) / np.linalg.norm(target))

    def _saved_slopes(self) -> dict[str, Array]:
        return self._leverage.arrays()

    @property
    def diagnostics(self) -> dict[str, Any]:
        """The diagnostics of its inverse; in the dual form also the rank correlation of scores at other dampings."""
        facts = super().diagnostics
        if super().calibrated and not self.calibrated:
            facts["warnings"] = [*facts["warnings"], NOT_THE_HESSIAN]
        if isinstance(self.inverse, DualForm):
            facts["damping_rank_correlation"] = self.inverse.rank_correlation
        return facts


def _preconditioned(operator: GaussNewtonOperator, recipe: CG, saved: SavedState) -> ConjugateGradients:
    """Conjugate gradients, preconditioned by a Nyström sketch, or by EK-FAC if that is too large.

    Without a shift neither has an inverse, and there is no preconditioner.
    """
    if operator.shift <= 0:
        return ConjugateGradients(operator, recipe)
    limits = operator.summed.limits
    if min(limits.sketch_rank, operator.size) * operator.size <= limits.sketch_numbers:
        sketch = NystromSolver(operator, Nystrom(rank=limits.sketch_rank), saved)
        return ConjugateGradients(operator, recipe, sketch.precondition, sketch.name, sketch.state, sketch.condition)
    factored = FittedEKFAC(operator.summed, saved=saved.part("fitted"))
    return ConjugateGradients(operator, recipe, lambda blocks: factored.inverse(dict(blocks)), "EK-FAC", factored.state)


def _direct(operator: GaussNewtonOperator, allow_cg: bool, saved: SavedState) -> Inverse | DualForm:
    """The dual form if its matrix fits, else CG if that is allowed, else the matrix of the parameters.

    What is saved belongs to one of the other two.
    """
    n, limits = len(operator.summed.train), operator.summed.limits
    rows = f"more than {limits.dual_rows:,}"
    # Where no shift is needed, the dual form, which divides by it, has none.
    has_dual = operator.shift > 0 or operator.summed.damping_from != NONE_AT_OPTIMUM
    if not saved and has_dual and n * operator.outputs_per_example**2 <= limits.hessian_numbers:
        roots = Roots(operator, _dual_share(operator.summed))
        if len(roots) <= limits.dual_rows:
            return DualForm(roots)
        rows = f"{len(roots):,}"
    if allow_cg:
        return Inverse(_preconditioned(operator, DEFAULT_CG, saved))
    if operator.size <= limits.matrix_parameters:
        return Inverse(prepare(operator, Direct(), saved))
    raise ValueError(
        f"a direct solver has no room for {operator.size:,} parameters (at most {limits.matrix_parameters:,}), nor its "
        f"dual form for {rows} directions of {n:,} examples (at most {limits.dual_rows:,}); use solver=CG()"
    )


def _dual_share(summed: SummedObjective) -> float:
    """The share of the trace that the dual form holds: all of it where no damping covers what is left out."""
    return 1.0 if summed.damping_from == NONE_AT_OPTIMUM else summed.limits.dual_trace

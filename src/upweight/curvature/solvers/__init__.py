"""Solvers of (A + shift) x = b for a matrix A that is known only through its products, one file each."""

from __future__ import annotations

from upweight.core.curvature_recipes import CG, Arnoldi, Direct, LiSSA, Nystrom, Solver
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.operators import Operator
from upweight.curvature.solvers.arnoldi import ArnoldiSolver
from upweight.curvature.solvers.cg import ConjugateGradients
from upweight.curvature.solvers.direct import CholeskySolver
from upweight.curvature.solvers.lissa import LissaSolver
from upweight.curvature.solvers.nystrom import NystromSolver
from upweight.curvature.solvers.solution import PreparedSolver, Solution

__all__ = ["PreparedSolver", "Solution", "prepare"]


def prepare(operator: Operator, recipe: Solver, saved: SavedState = NOTHING_SAVED) -> PreparedSolver:
    """The solver that the recipe names, prepared for right-hand sides; from a saved state if there is one."""
    match recipe:
        case Direct():
            return CholeskySolver(operator, saved)
        case CG():
            return ConjugateGradients(operator, recipe)
        case LiSSA():
            return LissaSolver(operator, recipe)
        case Arnoldi():
            return ArnoldiSolver(operator, recipe, saved)
        case Nystrom():
            return NystromSolver(operator, recipe, saved)
    raise TypeError(f"expected a solver (Direct(), CG(), LiSSA(), Arnoldi() or Nystrom()), got {recipe!r}")

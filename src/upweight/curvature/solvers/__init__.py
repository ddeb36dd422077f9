"""Solvers of (A + shift) x = b where A is known by its products alone, one file each."""

from __future__ import annotations

from upweight.core.curvature_recipes import CG, Arnoldi, Direct, LiSSA, Nystrom, Solver
from upweight.curvature.operators import Operator
from upweight.curvature.solvers.arnoldi import Krylov
from upweight.curvature.solvers.cg import ConjugateGradients
from upweight.curvature.solvers.direct import Cholesky
from upweight.curvature.solvers.lissa import Neumann
from upweight.curvature.solvers.nystrom import Sketched
from upweight.curvature.solvers.solution import Prepared, Solution

__all__ = ["Prepared", "Solution", "prepared"]


def prepared(operator: Operator, recipe: Solver) -> Prepared:
    """The solver that the recipe names, ready for right-hand sides."""
    match recipe:
        case Direct():
            return Cholesky(operator)
        case CG():
            return ConjugateGradients(operator, recipe)
        case LiSSA():
            return Neumann(operator, recipe)
        case Arnoldi():
            return Krylov(operator, recipe)
        case Nystrom():
            return Sketched(operator, recipe)
    raise TypeError(f"expected a solver (Direct(), CG(), LiSSA(), Arnoldi() or Nystrom()), got {recipe!r}")

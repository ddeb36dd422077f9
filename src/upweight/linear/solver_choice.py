"""Which solver factors the Hessian of a linear model."""

from __future__ import annotations

from upweight.core.curvature_recipes import CG, Hessian
from upweight.linear.cholesky import BlockCholesky, JointCholesky
from upweight.linear.conjugate_gradients import ConjugateGradients
from upweight.linear.hessian_solver import HessianSolver
from upweight.linear.problem import Problem
from upweight.linear.sparse_cholesky import SparseCholesky, is_eliminable

MAX_CHOLESKY = 15_000  # rows of a matrix up to which it is factored


def is_factored(problem: Problem, recipe: Hessian | None) -> bool:
    """Whether a matrix is factored, and no conjugate gradients are taken."""
    solver = None if recipe is None else recipe.solver
    height = problem.size if problem.family.coupled else problem.features.width
    return height <= MAX_CHOLESKY if solver is None else not isinstance(solver, CG)


def solver_for(problem: Problem, recipe: Hessian | None, damping: float) -> HessianSolver:
    """The solver that the recipe names; without one, a factorisation if the matrix is small enough."""
    if not is_factored(problem, recipe):
        solver = None if recipe is None else recipe.solver
        settings = solver if isinstance(solver, CG) else CG()
        return ConjugateGradients(problem, damping, settings.tolerance, settings.steps)
    if is_eliminable(problem):
        return SparseCholesky(problem, damping)
    return (
        JointCholesky(problem, damping)
        if problem.family.coupled and problem.family.outputs > 1
        else BlockCholesky(problem, damping)
    )

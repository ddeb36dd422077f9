"""Which solver factors the Hessian of a linear model."""

from __future__ import annotations

from upweight.core.curvature_recipes import CG, Direct, Hessian
from upweight.linear.cholesky import BlockCholesky, JointCholesky
from upweight.linear.conjugate_gradients import ConjugateGradients
from upweight.linear.hessian_solver import HessianSolver
from upweight.linear.problem import Problem

MAX_CHOLESKY = 15_000  # rows of a matrix up to which it is factored


def solver_for(problem: Problem, recipe: Hessian | None, damping: float) -> HessianSolver:
    """The solver that the recipe names; without one, a factorisation if the matrix is small enough."""
    solver = None if recipe is None else recipe.solver
    height = problem.size if problem.family.coupled else problem.features.width
    if solver is None:
        solver = Direct() if height <= MAX_CHOLESKY else CG()
    if isinstance(solver, CG):
        return ConjugateGradients(problem, damping, solver.tolerance, solver.steps)
    return (
        JointCholesky(problem, damping)
        if problem.family.coupled and problem.family.outputs > 1
        else BlockCholesky(problem, damping)
    )

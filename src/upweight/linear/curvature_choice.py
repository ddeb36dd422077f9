"""Which curvature a linear model has: smooth, with parameters that are 0 (l1), with kinks (hinge), or with a scale."""

from __future__ import annotations

from typing import Any

from upweight.core.curvature_recipes import Arnoldi, Hessian, LiSSA, Nystrom
from upweight.linear.curvature import LinearCurvature
from upweight.linear.huber_curvature import HuberCurvature
from upweight.linear.kink_curvature import KinkCurvature
from upweight.linear.losses.huber import HuberLoss
from upweight.linear.problem import Problem
from upweight.linear.sparse_curvature import SparseCurvature


def curvature_of(problem: Problem, recipe: Hessian | None, damping: float) -> LinearCurvature | SparseCurvature:
    """The exact curvature of a training objective at its parameters."""
    if problem.has_l1:
        return SparseCurvature(problem, recipe, damping)
    if isinstance(problem.family, HuberLoss):
        return HuberCurvature(problem, recipe, damping)
    return (KinkCurvature if problem.family.has_kinks else LinearCurvature)(problem, recipe, damping)


def require_exact_recipe(recipe: Any, name: str) -> None:
    """Raise TypeError for a recipe other than None and the Hessian with an exact solver."""
    is_hessian = recipe is None or isinstance(recipe, Hessian)
    if not is_hessian or isinstance(getattr(recipe, "solver", None), LiSSA | Arnoldi | Nystrom):
        raise TypeError(
            f"expected Hessian(solver=Direct() | CG()) or None for {name}, whose Hessian is exact, got {recipe!r}"
        )

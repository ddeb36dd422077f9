"""Which curvature a linear model has: smooth, with parameters that are 0 (l1), with kinks (hinge), or with a scale."""

from __future__ import annotations

from typing import Any

from upweight.core.curvature_recipes import Arnoldi, Hessian, LiSSA, Nystrom
from upweight.linear.curvature import LinearCurvature
from upweight.linear.huber_curvature import HuberCurvature
from upweight.linear.kink_curvature import KinkCurvature
from upweight.linear.losses.huber import HuberLoss
from upweight.linear.losses.loss import LinearLoss
from upweight.linear.losses.nu import NuEpsilonLoss, NuHingeLoss
from upweight.linear.losses.pinball import SmoothPinballLoss
from upweight.linear.nu_curvature import NuHingeCurvature, NuTubeCurvature
from upweight.linear.problem import Problem
from upweight.linear.quantile_curvature import QuantileCurvature
from upweight.linear.sparse_curvature import SparseCurvature

OF_LOSSES: dict[type[LinearLoss], type[LinearCurvature] | type[SparseCurvature]] = {
    SmoothPinballLoss: QuantileCurvature,
    HuberLoss: HuberCurvature,
    NuHingeLoss: NuHingeCurvature,
    NuEpsilonLoss: NuTubeCurvature,
}


def curvature_of(problem: Problem, recipe: Hessian | None, damping: float) -> LinearCurvature | SparseCurvature:
    """The exact curvature of a training objective at its parameters."""
    family = problem.family
    for loss, curvature in OF_LOSSES.items():
        if isinstance(family, loss):
            return curvature(problem, recipe, damping)
    if problem.has_l1:
        return SparseCurvature(problem, recipe, damping)
    return (KinkCurvature if family.has_kinks else LinearCurvature)(problem, recipe, damping)


def require_exact_recipe(recipe: Any, name: str) -> None:
    """Raise TypeError for a recipe other than None and the Hessian with an exact solver."""
    is_hessian = recipe is None or isinstance(recipe, Hessian)
    if not is_hessian or isinstance(getattr(recipe, "solver", None), LiSSA | Arnoldi | Nystrom):
        raise TypeError(
            f"expected Hessian(solver=Direct() | CG()) or None for {name}, whose Hessian is exact, got {recipe!r}"
        )

"""What a linear model has computed from its last data sets, so that it is not computed again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import ref

from upweight.core.data_cache import DataCache
from upweight.linear.curvature import LinearCurvature
from upweight.linear.curvature_choice import curvature_of
from upweight.linear.features import Features
from upweight.linear.problem import Problem
from upweight.linear.sparse_curvature import SparseCurvature

OptimumCurvature = LinearCurvature | SparseCurvature


@dataclass(eq=False)
class ModelCache:
    """The features of two data sets, and of one training set the objective, its curvature and its optimum.

    Attributes:
        features: of the last two data sets.
        problem: the training objective.
        why_off_optimum: the sentence about rows that seem to be missing, or None.
        curvature: of the last fit, which owns it; None before the first one, and in other processes.
        optimum: the curvature at the optimum, from which retrainings start.
    """

    features: DataCache[Features] = field(default_factory=lambda: DataCache(2))
    problem: DataCache[Problem] = field(default_factory=lambda: DataCache(1))
    why_off_optimum: DataCache[str | None] = field(default_factory=lambda: DataCache(1))
    curvature: ref[OptimumCurvature] | None = None
    optimum: OptimumCurvature | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything, also the optimum from which trainings in other processes start, but no reference to a fit."""
        return {**self.__dict__, "curvature": None}

    def optimum_of(self, problem: Problem) -> OptimumCurvature:
        """The curvature at the optimum of this objective, from the factorisation of the last fit if that is left."""
        if self.optimum is None:
            fitted = None if self.curvature is None else self.curvature()
            if fitted is None or fitted.problem is not problem:
                fitted = curvature_of(problem, None, 0.0)
            self.optimum = fitted.reoptimised()
        return self.optimum

"""What the exact Hessian of a linear model takes, by counting operations and timing a small factorisation."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.linalg import cho_factor

from upweight.core.curvature_recipes import Hessian
from upweight.core.forecast import Forecast
from upweight.core.matrix_products import least_seconds
from upweight.linear.problem import Problem
from upweight.linear.solver_choice import is_factored
from upweight.linear.sparse_cholesky import is_eliminable

SMALL_OPERATIONS = 2e10  # operations that take a second or two at most: no forecast
PROBED = 1280  # rows of the matrix that is factored to know the speed
SPARSE_SLOWDOWN = 20.0  # of products of single numbers beside those of a matrix
INVERSION = 2.0  # operations of inverting a factor, in factorisations


def forecast_fit(problem: Problem, recipe: Hessian | None, with_leverages: bool) -> Forecast | None:
    """Time and memory of Hessian, factorisation and leverages; None if that is short, or nothing is factored.

    None also if rare columns are eliminated first: what is left to factor is known, and announced, only then.
    """
    if not is_factored(problem, recipe) or is_eliminable(problem):
        return None
    features, outputs = problem.features, problem.family.outputs
    is_joint = problem.family.coupled and outputs > 1
    blocks = 1 if is_joint or problem.family.is_quadratic else outputs
    height = problem.size if is_joint else features.width
    pairs = outputs * (outputs + 1) / 2 if is_joint else blocks
    assembly = (
        pairs * features.entries * (features.entries / len(features)) * (SPARSE_SLOWDOWN if features.sparse else 1)
    )
    factorisation = blocks * height**3 / 3
    operations = {"Hessian": assembly, "factorisation": factorisation}
    if with_leverages:
        operations["leverages"] = INVERSION * factorisation + assembly
    if sum(operations.values()) < SMALL_OPERATIONS:
        return None
    rate = _operations_per_second()
    return Forecast({name: count / rate for name, count in operations.items()}, 8.0 * blocks * height**2)


@cache
def _operations_per_second() -> float:
    """The speed of a factorisation on this machine as it is loaded now."""
    matrix = np.full((PROBED, PROBED), 1.0, order="F")
    matrix[np.diag_indices(PROBED)] = 2.0 * PROBED
    cho_factor(matrix, lower=True, check_finite=False)  # the first call loads the library
    return PROBED**3 / 3 / least_seconds(lambda: cho_factor(matrix, lower=True, check_finite=False))

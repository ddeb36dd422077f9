"""A note on columns of so different scales that iterative solvers may stop before the optimum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.input_kinds import is_sparse
from upweight.core.objective import Objective

FAR_APART = 1e5  # ratio of the scales of two columns, from which solvers by gradients stop early in some refits
# Solvers whose steps depend on the scales of the columns.
BY_STEPS = frozenset({"lbfgs", "newton-cg", "liblinear", "sag", "saga", "lsqr", "sparse_cg"})
SOLVER_OF = {"HuberRegressor": "lbfgs", "LinearSVC": "liblinear", "LinearSVR": "liblinear"}
LIBSVM = frozenset({"SVC", "SVR", "NuSVC", "NuSVR"})


def note_on_scales(estimator: Any, matrix: Any, objective: Objective) -> tuple[str, ...]:
    """The note, for a solver that stops early on columns like these.

    The scale of a column is the root of its curvature under a loss of curvature 1, which the l2 bounds from below.
    """
    name = type(estimator).__name__
    solver = getattr(estimator, "solver_", getattr(estimator, "solver", SOLVER_OF.get(name)))
    solver = "libsvm" if name in LIBSVM and estimator.kernel == "linear" else solver
    if solver not in BY_STEPS and solver != "libsvm":
        return ()
    squares = _sums_of_squares(matrix)
    if getattr(estimator, "fit_intercept", True):
        squares = np.append(squares, float(matrix.shape[0]))
    curvatures = squares[squares > 0] + objective.ridge(np.ones(matrix.shape[0]))
    ratio = float(np.sqrt(curvatures.max() / curvatures.min())) if len(curvatures) else 1.0
    if ratio < FAR_APART:
        return ()
    return (
        f"The columns (and the intercept) differ in scale by a factor of {ratio:.1g}, at which {solver}, the solver of "
        f"{name}, may stop before the optimum. Scores are effects at the optimum; refits may differ from them by as "
        "much as they are. Scale the columns, as StandardScaler does, and fit it again.",
    )


def _sums_of_squares(matrix: Any) -> NDArray[np.float64]:
    """Σᵢ xᵢⱼ² of every column."""
    if is_sparse(matrix):
        return np.asarray(matrix.astype(np.float64).power(2).sum(axis=0)).ravel()
    columns = np.asarray(matrix, dtype=np.float64)
    return np.asarray(np.einsum("ij,ij->j", columns, columns))

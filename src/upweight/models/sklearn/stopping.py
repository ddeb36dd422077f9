"""When the solvers of scikit-learn's linear models stop: at max_iter, or at a small gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from upweight.core.input_kinds import is_sparse
from upweight.linear.missing_rows import Stopping

BY_GRADIENT = ("lbfgs", "newton-cg", "newton-cholesky")  # solvers that stop at a largest entry of the gradient
CLOSED_FORM = ("cholesky", "svd")
FALLBACK = 0.9  # share of max_iter from which newton-cholesky may have stopped short of the optimum
SMALLEST_CLASS = 0.5  # liblinear multiplies tol by the share of the smaller class


def may_be_unfinished(estimator: Any) -> bool:
    """Whether training may have ended before the optimum: SGD has a rule of its own, others end at max_iter."""
    used = getattr(estimator, "n_iter_", None)
    limit, used = getattr(estimator, "max_iter", None), 0 if used is None else np.max(used)
    if getattr(estimator, "solver", None) == "newton-cholesky" and limit is not None:
        limit *= FALLBACK  # where its Hessian is singular, lbfgs goes on with the iterations that are left
    return type(estimator).__name__ == "SGDClassifier" or (limit is not None and limit > 0 and bool(used >= limit))


def stopping_of(estimator: Any, matrix: Any) -> Stopping | None:
    """When the solver of a fitted estimator stopped by itself; None if it may not have, or looks at no smooth loss."""
    name = type(estimator).__name__
    if may_be_unfinished(estimator) or name == "SVC" or getattr(estimator, "loss", None) == "hinge":
        return None
    kind = np.asarray(estimator.coef_).dtype
    if kind == np.float32:  # rounding stops its solvers at gradients that say nothing of the data
        return Stopping(None, precision=float(np.finfo(np.float32).eps))
    solver = getattr(estimator, "solver_", getattr(estimator, "solver", "liblinear" if name == "LinearSVC" else "svd"))
    if solver in BY_GRADIENT and name not in ("Ridge", "RidgeClassifier"):
        return Stopping(float(estimator.tol))
    if solver == "liblinear":
        is_primal = not getattr(estimator, "dual", False) or (estimator.dual == "auto" and _is_tall(matrix))
        return Stopping(SMALLEST_CLASS * float(estimator.tol) if is_primal else None, True)
    # LinearRegression solves sparse inputs by iterations, and drops directions that the data hardly determine.
    is_closed = solver in CLOSED_FORM or (solver == "auto" and name.startswith("Ridge"))
    is_closed = is_closed and getattr(estimator, "rank_", matrix.shape[1]) == matrix.shape[1]
    return Stopping(0.0 if is_closed and not is_sparse(matrix) else None)


def _is_tall(matrix: Any) -> bool:
    return bool(matrix.shape[0] >= matrix.shape[1])

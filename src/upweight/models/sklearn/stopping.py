"""When the solvers of scikit-learn's linear models stop: at max_iter, or at a small gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from upweight.core.input_kinds import is_sparse
from upweight.linear.missing_rows import Stopping

BY_GRADIENT = ("lbfgs", "newton-cg", "newton-cholesky")  # solvers that stop at a largest entry of the gradient
CLOSED_FORM = ("cholesky", "svd")
# Estimators whose solvers look at no gradient of the coefficients alone.
UNKNOWN = ("SVC", "SVR", "NuSVC", "NuSVR", "KernelRidge", "HuberRegressor", "ARDRegression", "QuantileRegressor")
AT_PRECISIONS = (
    "BayesianRidge",
    "ARDRegression",
)  # solve exactly for the coefficients, and iterate over the precisions
NOT_SMOOTH = ("hinge", "epsilon_insensitive")
FALLBACK = 0.9  # share of max_iter from which newton-cholesky may have stopped short of the optimum
# Gradient at which SAG and SAGA stop, in units of tol · largest coefficient · L/n; their steps are random.
AVERAGED_STEPS = {"sag": 160.0, "saga": 60.0}
LSQR = 3.0  # times tol; its estimate of ‖X‖ grows with its steps
SMALLEST_CLASS = 0.5  # liblinear multiplies tol by the share of the smaller class


def may_be_unfinished(estimator: Any) -> bool:
    """Whether training may have ended before the optimum: SGD has a rule of its own, others end at max_iter."""
    if type(estimator).__name__ in AT_PRECISIONS:
        return False
    used = getattr(estimator, "n_iter_", None)
    limit, used = getattr(estimator, "max_iter", None), 0 if used is None else np.max(used)
    if getattr(estimator, "solver", None) == "newton-cholesky" and limit is not None:
        limit *= FALLBACK  # where its Hessian is singular, lbfgs continues with the iterations that are left
    return type(estimator).__name__ == "SGDClassifier" or (limit is not None and limit > 0 and bool(used >= limit))


def stopping_of(estimator: Any, matrix: Any) -> Stopping | None:
    """When the solver of a fitted estimator stopped by itself; None if it may not have, or looks at no smooth loss."""
    name = type(estimator).__name__
    if may_be_unfinished(estimator) or name in UNKNOWN or getattr(estimator, "loss", None) in NOT_SMOOTH:
        return None
    solver = getattr(
        estimator, "solver_", getattr(estimator, "solver", "liblinear" if name in ("LinearSVC", "LinearSVR") else "svd")
    )
    is_ridge = name in ("Ridge", "RidgeClassifier")
    dtype = np.asarray(estimator.coef_).dtype
    if dtype in (np.float16, np.float32):
        tolerance = None  # rounding stops solvers that take many steps
        if solver in BY_GRADIENT and not is_ridge:
            tolerance = float(estimator.tol)
        elif solver in (*CLOSED_FORM, "auto") and not is_sparse(matrix) and _has_full_rank(estimator, matrix):
            tolerance = 0.0
        return Stopping(tolerance, precision=float(np.finfo(dtype).eps))
    return _stopping_of_ridge(estimator, matrix, solver) if is_ridge else _stopping_of_others(estimator, matrix, solver)


def _stopping_of_ridge(estimator: Any, matrix: Any, solver: str) -> Stopping:
    """Ridge and RidgeClassifier."""
    stopping = Stopping(None)
    if solver in ("sag", "saga"):
        stopping = Stopping(_gradient_of_averaged_steps(estimator, matrix, solver, 1.0))
    elif solver == "lsqr":
        stopping = Stopping(LSQR * float(estimator.tol), "residuals")
    elif solver == "sparse_cg" and _is_tall(matrix):
        stopping = Stopping(float(estimator.tol), "start")
    elif solver in (*CLOSED_FORM, "auto") and not is_sparse(matrix):
        stopping = Stopping(0.0)
    return stopping


def _stopping_of_others(estimator: Any, matrix: Any, solver: str) -> Stopping:
    """Logistic and Tweedie models, least squares and LinearSVC."""
    stopping = Stopping(None)
    if solver in BY_GRADIENT:
        stopping = Stopping(float(estimator.tol))
    elif solver in ("sag", "saga"):
        stopping = Stopping(_gradient_of_averaged_steps(estimator, matrix, solver, 0.25))
    elif solver == "liblinear":
        is_primal = not getattr(estimator, "dual", False) or (estimator.dual == "auto" and _is_tall(matrix))
        stopping = Stopping(SMALLEST_CLASS * float(estimator.tol) if is_primal else None, "start")
    elif solver in CLOSED_FORM and not is_sparse(matrix):
        # LinearRegression solves sparse inputs by iterations, and drops directions that the data hardly determine.
        stopping = Stopping(0.0 if _has_full_rank(estimator, matrix) else None)
    return stopping


def _gradient_of_averaged_steps(estimator: Any, matrix: Any, solver: str, curvature: float) -> float | None:
    """The largest gradient, per unit of weight, at which SAG or SAGA stops.

    They stop when no coefficient changes in an epoch by more than tol times the largest one. An epoch moves the
    coefficients by about n · step · gradient (Schmidt, Le Roux & Bach 2017), where the step is 1/L or 1/(3L) with the
    Lipschitz constant L of the gradient, so that the gradient is about tol · largest coefficient · L/n.
    `curvature` is the largest second derivative of the loss.
    """
    if getattr(estimator, "class_weight", None) is not None:
        return None
    squares = np.asarray(matrix.multiply(matrix).sum(axis=1) if is_sparse(matrix) else (matrix**2).sum(axis=1))
    lipschitz = curvature * (float(squares.max()) + 1.0)
    change = float(estimator.tol) * float(np.abs(estimator.coef_).max())
    return AVERAGED_STEPS[solver] * change * lipschitz / int(matrix.shape[0])


def _is_tall(matrix: Any) -> bool:
    return bool(matrix.shape[0] >= matrix.shape[1])


def _has_full_rank(estimator: Any, matrix: Any) -> bool:
    return bool(getattr(estimator, "rank_", matrix.shape[1]) == matrix.shape[1])

"""Directions of the parameters that some training examples alone determine, so that the data do not without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

from upweight.linear.hessian_solver import HessianSolver
from upweight.linear.problem import Problem

Array = NDArray[np.float64]
ROUNDING = 1e-9  # curvature of all other examples, relative to that of these, up to which it is a rounding error
MAX_DENSE_EIGEN = 64  # parameters up to which all eigenvectors are computed
MAX_EIGENVECTORS = 8  # of more parameters


def only_determined_by(solver: HessianSolver, examples: Sequence[int] | NDArray[np.bool_], directions: Array) -> Array:
    """Those of the directions (r, K, d) along which the curvature of all other examples is a rounding error: (s, K·d).

    Rounding and the damping of a singular Hessian keep a computed leverage away from 1. This test does not depend on
    them, because near its minimum the curvature of the others changes little.
    """
    problem, alone = solver.problem, np.zeros(len(directions), dtype=bool)
    for row, v in enumerate(directions):
        outputs = problem.features.times(v.T)
        curved = (outputs * problem.derivatives.apply(outputs)).sum(axis=1) * problem.weights
        own = float(np.sum(curved[examples]))
        curved[examples] = 0.0
        others = float(curved.sum() + problem.ridge * (v * problem.penalty_gradient(v)).sum())
        alone[row] = others + solver.damping * float((v**2).sum()) <= ROUNDING * own
    return directions[alone].reshape(-1, problem.size)


def leading_eigenvectors(matvec: Callable[[Array], Array], size: int, smallest: float) -> Array:
    """Eigenvectors (r, size) of eigenvalues from `smallest` to 1 of H⁻¹H_U, whose eigenvalues are in [0, 1]."""
    if size <= MAX_DENSE_EIGEN:
        values, vectors = np.linalg.eig(np.stack([matvec(unit) for unit in np.eye(size)], axis=1))
    else:
        operator = LinearOperator((size, size), matvec=matvec, dtype=np.float64)
        start = np.random.default_rng(0).standard_normal(size)
        try:
            values, vectors = eigs(operator, k=MAX_EIGENVECTORS, which="LM", v0=start, maxiter=1000)
        except ArpackNoConvergence as error:  # those that converged are the separate ones, as 1 is
            values, vectors = error.eigenvalues, error.eigenvectors
    return np.real(vectors[:, np.real(values) > smallest]).T


def smallest_norm(problem: Problem, parameters: Array, directions: Array) -> Array:
    """The parameters (K·d,) moved along undetermined directions (r, K·d) to the smallest penalised norm.

    That is the limit of a vanishing l2, and where least squares and solvers that start from 0 end.
    """
    penalised, metric = problem.features.penalised, problem.family.metric()
    vectors = directions.reshape(-1, *problem.shape)
    weighted = (np.einsum("ck,...kd->...cd", metric, vectors) * penalised).reshape(directions.shape)
    steps = np.linalg.lstsq(weighted @ directions.T, -weighted @ parameters, rcond=None)[0]
    return np.asarray(parameters + steps @ directions)

"""Directions of the parameters that some training examples alone determine, so that the data do not without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

from upweight.linear.hessian_solver import HessianSolver
from upweight.linear.problem import Problem

Array = NDArray[np.float64]
ROUNDING = 1e-9  # curvature of all others over that of the examples, up to which it is a rounding error
MAX_DENSE_EIGEN = 64  # parameters up to which all eigenvectors are computed
MAX_EIGENVECTORS = 8  # of more parameters
MAX_NULL = 500  # parameters up to which the null space of a singular Hessian is computed
NULL = 1e-11  # eigenvalue, of the Hessian scaled to a diagonal of 1, that is a rounding error


def only_determined_by(solver: HessianSolver, examples: Sequence[int] | NDArray[np.bool_], directions: Array) -> Array:
    """The directions among (r, K, d) along which the curvature of all other examples is a rounding error: (s, K·d).

    Rounding and the damping of a singular Hessian keep a computed leverage away from 1. This test does not depend on
    them, because near its minimum the curvature of the others changes little.
    """
    problem, alone = solver.problem, np.zeros(len(directions), dtype=bool)
    for row, v in enumerate(directions):
        outputs = problem.features.times(v.T)
        curved = (outputs * problem.derivatives.apply(outputs)).sum(axis=1) * problem.weights
        of_examples = float(np.sum(curved[examples]))
        curved[examples] = 0.0
        of_others = float(curved.sum() + problem.ridge * (v * problem.penalty_gradient(v)).sum())
        alone[row] = of_others + solver.damping * float((v**2).sum()) <= ROUNDING * of_examples
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


@dataclass(frozen=True)
class NullSpace:
    """Directions along which no example determines the parameters of a least-squares fit (dependent columns).

    Along them a step is free, and least squares takes the one to the smallest penalised norm: ΠΔ with
    Π = I − V(VᵀPV)⁻¹VᵀP, where V are the directions and P the penalised columns.

    Attributes:
        directions: V, (r, K·d).
        penalised: P V, (r, K·d).
    """

    directions: Array
    penalised: Array

    @classmethod
    def of(cls, solver: HessianSolver) -> NullSpace | None:
        """The null space of a singular Hessian; None if it is regular or too large, or for a loss that is not squared.

        Solvers of other losses start from 0 and take steps within the space of the examples, as Newton steps do.
        """
        problem = solver.problem
        if not solver.jitter or solver.damping or problem.ridge or not problem.family.is_quadratic:
            return None
        if problem.size > MAX_NULL:
            return None
        hessian = solver.matvec(np.eye(problem.size).reshape(-1, *problem.shape)).reshape(problem.size, problem.size)
        hessian[np.diag_indices(problem.size)] -= solver.jitter
        diagonal = hessian.diagonal()
        scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        values, vectors = np.linalg.eigh(hessian * scale[:, None] * scale)
        directions = np.asarray((vectors[:, np.abs(values) <= NULL] * scale[:, None]).T)
        if not len(directions):
            return None
        return cls(
            directions, (directions.reshape(-1, *problem.shape) * problem.features.penalised).reshape(-1, problem.size)
        )

    def shortened(self, steps: Array) -> Array:
        """ΠΔ for steps (g, K·d)."""
        return np.asarray(steps - self._coordinates(steps @ self.penalised.T) @ self.directions)

    def determined(self, gradients: Array) -> Array:
        """Πᵀg for gradients (m, K·d): their products with any step Δ are those of g with ΠΔ."""
        return np.asarray(gradients - self._coordinates(gradients @ self.directions.T) @ self.penalised)

    def _coordinates(self, products: Array) -> Array:
        return np.asarray(np.linalg.lstsq(self.penalised @ self.directions.T, products.T, rcond=None)[0].T)


def smallest_norm(problem: Problem, parameters: Array, directions: Array) -> Array:
    """The parameters (K·d,) moved along undetermined directions (r, K·d) to the smallest penalised norm.

    That is the limit of a vanishing l2, and where least squares and solvers that start from 0 end.
    """
    penalised, metric = problem.features.penalised, problem.family.metric()
    vectors = directions.reshape(-1, *problem.shape)
    weighted = (np.einsum("ck,...kd->...cd", metric, vectors) * penalised).reshape(directions.shape)
    steps = np.linalg.lstsq(weighted @ directions.T, -weighted @ parameters, rcond=None)[0]
    return np.asarray(parameters + steps @ directions)


def singular_warning(solver: HessianSolver, null_space: NullSpace | None) -> str:
    """The meaning of scores if the Hessian is singular, as a note."""
    consequence = "where the data do not determine the model, they are those of the parameters of smallest norm"
    if null_space is None:
        consequence = "directions that the data do not determine have no effect on them"
    return (
        f"The Hessian is singular (no l2, dependent columns): damped by {solver.jitter:.2g}, which changes scores by a "
        f"relative 1e-10; {consequence}."
    )

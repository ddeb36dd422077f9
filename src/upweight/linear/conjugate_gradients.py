"""The iterative solver for the Hessian of a linear model: preconditioned conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.linear.cholesky import BlockCholesky
from upweight.linear.hessian_solver import HessianSolver
from upweight.linear.problem import Problem

Array = NDArray[np.float64]
Map = Callable[[Array], Array]


class ConjugateGradients(HessianSolver):
    """Conjugate gradients on products with the features, preconditioned by one Cholesky block per output.

    For more parameters than a matrix can hold: 4nKd floating-point operations per step and right-hand side. The
    preconditioner decides how many steps it takes (Frangella et al. 2023); the block-diagonal one needs about ten for
    softmax.

    Args:
        problem, damping: as for every `HessianSolver`.
        tolerance: relative residual of a solve.
        max_steps: the maximum number of steps.
        max_block_columns: with more columns than this, the preconditioner is the diagonal of the Hessian.
    """

    name = "conjugate gradients, block-diagonal preconditioner"

    def __init__(
        self, problem: Problem, damping: float, tolerance: float, max_steps: int, max_block_columns: int = 15_000
    ) -> None:
        super().__init__(problem, damping)
        self.tolerance, self.max_steps = tolerance, max_steps
        if problem.features.width <= max_block_columns:
            self._blocks: BlockCholesky | None = BlockCholesky(problem, damping)
            self.jitter = self._blocks.jitter
        else:
            self._blocks, self._inverse_diagonal = None, 1.0 / self._diagonal()
            self.name = "conjugate gradients, diagonal preconditioner"

    def solve(self, vectors: Array) -> Array:
        """All vectors at once; `residual` is the largest relative residual."""
        x, self.residual, self.steps = conjugate_gradients(
            self.matvec, self.solve_approximately, vectors, self.tolerance, self.max_steps
        )
        self.converged = self.residual <= self.tolerance
        return x

    def solve_approximately(self, vectors: Array) -> Array:
        """The inverse of the preconditioner."""
        return vectors * self._inverse_diagonal if self._blocks is None else self._blocks.solve(vectors)

    def leverages(self, pieces: Sequence[slice]) -> Iterator[Array]:
        """An estimate from the preconditioner's blocks, without the interaction of outputs, (b, K)."""
        if self._blocks is not None:
            yield from self._blocks.leverages(pieces)
            return
        for where in pieces:
            x = self.problem.features.take(where)
            squares = x.x.multiply(x.x) if x.sparse else x.x.astype(np.float64) ** 2
            without_intercept = np.asarray(squares @ self._inverse_diagonal[:, : x.columns].T)
            intercept = x.intercept**2 * self._inverse_diagonal[:, -1] if x.intercept else 0.0
            yield without_intercept + intercept

    def _diagonal(self) -> Array:
        """The diagonal of H + λ, (K, d)."""
        problem = self.problem
        x, outputs = problem.features, problem.family.outputs
        squares: Any = x.x.multiply(x.x).tocsr() if x.sparse else x.x.astype(np.float64) ** 2
        second = np.stack([problem.weights * problem.derivatives.second(c, c) for c in range(outputs)], axis=1)
        data = np.asarray(squares.T @ second).T
        if x.intercept:
            data = np.hstack([data, x.intercept**2 * second.sum(axis=0)[:, None]])
        metric = np.diagonal(problem.family.metric())[:, None]
        return data + problem.ridge * metric * x.penalised + self.damping + 1e-300  # never 0


def conjugate_gradients(
    matvec: Map, precondition: Map, b: Array, tolerance: float | Array, max_steps: int
) -> tuple[Array, float, int]:
    """Solve A x = b for b of shape (k, K, d), all k at once: (x, largest relative residual, steps).

    `tolerance` is the relative residual, of all or of each (k,).

    Preconditioned conjugate gradients (Hestenes & Stiefel 1952). A solution that has converged stays fixed while the
    others continue.
    `curvature/solvers/cg.py` has its own for torch blocks, which drops finished columns and restarts others.
    """
    x, r = np.zeros_like(b), b.copy()
    size = np.sqrt(_inner(b, b))
    z = precondition(r)
    p, rho = z.copy(), _inner(r, z)
    step = 0
    while step < max_steps:
        active = np.sqrt(_inner(r, r)) > tolerance * size
        if not active.any():
            break
        step += 1
        ap = matvec(p)
        curvature = _inner(p, ap)
        alpha = np.where(active & (curvature > 0), rho / np.where(curvature > 0, curvature, 1.0), 0.0)
        x += alpha[:, None, None] * p
        r -= alpha[:, None, None] * ap
        z = precondition(r)
        rho, previous = _inner(r, z), rho
        p = z + (rho / np.where(previous > 0, previous, 1.0))[:, None, None] * p
    residuals = np.sqrt(_inner(r, r)) / np.where(size > 0, size, 1.0)
    return x, float(residuals.max(initial=0.0)), step


def _inner(a: Array, b: Array) -> Array:
    """Inner product of each pair of vectors, (k,)."""
    return np.asarray(np.einsum("kcd,kcd->k", a, b))

"""Factors: H + λ of a generalised linear model in a form that can be solved with, one class per structure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, lapack

from upweight.linear.problem import Problem

Array = NDArray[np.float64]
TILE = 512  # side of the blocks in which a triangle is copied across
ROUNDING = 1e-13  # a pivot below this share of its diagonal entry is rounding
JITTER = 1e-10  # relative to the mean diagonal: what is added to a Hessian that has no inverse


class HessianSolver(ABC):
    """(H + λ)⁻¹ for vectors of shape (k, K, d), where H is the Hessian of the summed objective."""

    name: str
    steps = 0
    converged = True
    residual: float | None = None

    def __init__(self, problem: Problem, damping: float) -> None:
        self.problem = problem
        self.damping = damping
        self.jitter = 0.0

    @abstractmethod
    def solve(self, vectors: Array) -> Array:
        """(H + λ)⁻¹ v."""

    @abstractmethod
    def leverages(self, pieces: Sequence[slice]) -> Iterator[Array]:
        """S_i = X̃ᵢ (H + λ)⁻¹ X̃ᵢᵀ for each piece of the examples: (b, K, K), or (b, K) where outputs do not interact.

        The factor may be inverted in place while this runs: solve before or after, not in between.
        """

    def solve_approximately(self, vectors: Array) -> Array:
        """A fixed linear map close to `solve`, fit to precondition with."""
        return self.solve(vectors)

    def at(self, problem: Problem) -> HessianSolver:
        """The same factorisation, used at parameters close by."""
        other = copy(self)
        other.problem = problem
        return other

    @property
    def height(self) -> int:
        """Rows of the largest factored matrix: a solve costs 2·height flops per parameter."""
        return self.problem.features.width

    def matvec(self, vectors: Array) -> Array:
        """(H + λ) v by two products with the features, whatever was factored."""
        problem = self.problem
        count, outputs, width = vectors.shape
        n = len(problem.features)
        z = problem.features.times(vectors.reshape(-1, width).T).reshape(n, count, outputs)
        d = problem.derivatives
        bent = d.diagonal[:, None] * z
        if d.outer is not None:
            bent -= d.outer[:, None] * (d.outer[:, None] * z).sum(axis=-1, keepdims=True)
        bent *= problem.weights[:, None, None]
        product = problem.features.transposed_times(bent.reshape(n, -1)).T.reshape(vectors.shape)
        product += problem.ridge * problem.penalty_gradient(vectors)
        return product + (self.damping + self.jitter) * vectors

    def _block(self, c: int, k: int) -> Array:
        """Block (c, k) of H + λ, lower triangle."""
        problem = self.problem
        block = problem.features.weighted_gram(problem.weights * problem.derivatives.second(c, k))
        corner = problem.ridge * problem.family.metric()[c, k] * problem.features.penalised
        block[np.diag_indices_from(block)] += corner + (self.damping if c == k else 0.0)
        return block

    def _cholesky(self, assemble: Callable[[], Array]) -> Array:
        """Lower Cholesky factor in place; a matrix without one is damped by the least that helps, and says so."""
        for jitter in (0.0, JITTER):
            matrix = assemble()
            diagonal = matrix.diagonal().copy()
            added = jitter * float(np.abs(diagonal).mean() or 1.0)
            matrix[np.diag_indices_from(matrix)] += added
            with suppress(LinAlgError):
                factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)[0]
                if jitter or (np.diagonal(factor) ** 2 / np.where(diagonal > 0, diagonal, 1.0)).min() > ROUNDING:
                    self.jitter = max(self.jitter, added)
                    return np.asarray(factor)
        raise np.linalg.LinAlgError(
            "the Hessian is not positive definite: the loss is not convex at these parameters; pass a larger damping, "
            "e.g. Influence(damping=1e-3)"
        )


class JointCholesky(HessianSolver):
    """One Cholesky factorisation of all Kd parameters: outputs interact (softmax).

    Assembly is K(K+1)/2 symmetric rank-k updates, K(K+1)/2·d²n flops; the factorisation (Kd)³/3.
    """

    name = "Cholesky of the full Hessian"

    def __init__(self, problem: Problem, damping: float) -> None:
        super().__init__(problem, damping)
        self.lower = self._cholesky(self._assemble)

    def _assemble(self) -> Array:
        """The lower triangle of H + λ."""
        outputs, width = self.problem.shape
        matrix = np.empty((self.problem.size, self.problem.size), order="F")
        for c in range(outputs):
            for k in range(c + 1):
                block = self._block(c, k)
                place = (slice(c * width, (c + 1) * width), slice(k * width, (k + 1) * width))
                matrix[place] = block if c == k else np.tril(block) + np.tril(block, -1).T
        return matrix

    @property
    def height(self) -> int:
        """All parameters."""
        return self.problem.size

    def solve(self, vectors: Array) -> Array:
        """Two triangular solves per vector."""
        flat = vectors.reshape(len(vectors), -1).T
        return np.asarray(cho_solve((self.lower, True), flat, check_finite=False)).T.reshape(vectors.shape)

    def leverages(self, pieces: Sequence[slice]) -> Iterator[Array]:
        """Quadratic forms with the K(K+1)/2 blocks of the inverse."""
        outputs, width = self.problem.shape
        with inverse_above(self.lower) as inverse:
            for where in pieces:
                features = self.problem.features.take(where)
                s = np.empty((len(features), outputs, outputs))
                for c in range(outputs):
                    rows = slice(c * width, (c + 1) * width)
                    for k in range(c, outputs):
                        block = inverse[rows, k * width : (k + 1) * width]
                        s[:, c, k] = s[:, k, c] = features.quadratic(block if c == k else (block + block.T) / 2)
                yield s


@contextmanager
def inverse_above(lower: Array) -> Iterator[Array]:
    """H⁻¹ in the unused upper triangle of its Cholesky factor's own array, so that no second matrix is held.

    The diagonal belongs to the inverse while the context lasts, and is the factor's again after it.
    """
    diagonal = np.diagonal(lower).copy()
    for start in range(0, len(lower), TILE):
        stop = min(start + TILE, len(lower))
        lower[start:stop, stop:] = lower[stop:, start:stop].T
        corner = lower[start:stop, start:stop]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
    inverse, info = lapack.dpotri(lower, lower=0, overwrite_c=1)
    try:
        if info != 0 or not np.shares_memory(inverse, lower):
            raise np.linalg.LinAlgError("the Cholesky factor could not be inverted in place")
        yield lower
    finally:
        lower[np.diag_indices_from(lower)] = diagonal


class BlockCholesky(HessianSolver):
    """One Cholesky factorisation per output (a single one where all outputs share their second derivative)."""

    name = "Cholesky, one block per output"

    def __init__(self, problem: Problem, damping: float) -> None:
        super().__init__(problem, damping)
        blocks = 1 if problem.family.constant else problem.family.outputs
        self.lowers = [self._cholesky(partial(self._block, c, c)) for c in range(blocks)]

    def solve(self, vectors: Array) -> Array:
        """Two triangular solves per vector and output."""
        out = np.empty_like(vectors)
        for c in range(vectors.shape[1]):
            lower = self.lowers[min(c, len(self.lowers) - 1)]
            out[:, c] = cho_solve((lower, True), vectors[:, c].T, check_finite=False).T
        return out

    def leverages(self, pieces: Sequence[slice]) -> Iterator[Array]:
        """Quadratic forms with each block's inverse, (b, K)."""
        columns: list[list[Array]] = []
        for lower in self.lowers:
            with inverse_above(lower) as inverse:
                columns.append([self.problem.features.take(where).quadratic(inverse) for where in pieces])
        for piece in range(len(pieces)):
            each = [columns[min(c, len(columns) - 1)][piece] for c in range(self.problem.family.outputs)]
            yield np.stack(each, axis=1)


class ConjugateGradients(HessianSolver):
    """Conjugate gradients on products with the features, preconditioned by one block per output.

    For more parameters than a matrix can hold: 4nKd flops a step and right-hand side (Frangella et al. 2023 on why
    preconditioning decides; the block-diagonal one needs about ten steps on softmax). Beyond `widest` columns a block
    is only its diagonal.
    """

    name = "conjugate gradients, block-diagonal preconditioner"

    def __init__(self, problem: Problem, damping: float, tolerance: float, most: int, widest: int = 15_000) -> None:
        super().__init__(problem, damping)
        self.tolerance, self.most = tolerance, most
        if problem.features.width <= widest:
            self._blocks: BlockCholesky | None = BlockCholesky(problem, damping)
            self.jitter = self._blocks.jitter
        else:
            self._blocks, self._inverse_diagonal = None, 1.0 / self._diagonal()
            self.name = "conjugate gradients, diagonal preconditioner"

    def solve(self, vectors: Array) -> Array:
        """All vectors at once; what is left of each is reported in `residual`."""
        x, self.residual, self.steps = conjugate_gradients(
            self.matvec, self.solve_approximately, vectors, self.tolerance, self.most
        )
        self.converged = self.residual <= self.tolerance
        return x

    def solve_approximately(self, vectors: Array) -> Array:
        """The block (or diagonal) inverse alone."""
        return vectors * self._inverse_diagonal if self._blocks is None else self._blocks.solve(vectors)

    def leverages(self, pieces: Sequence[slice]) -> Iterator[Array]:
        """From the preconditioner's blocks: an estimate that leaves the interaction of outputs out, (b, K)."""
        if self._blocks is not None:
            yield from self._blocks.leverages(pieces)
            return
        for where in pieces:
            x = self.problem.features.take(where)
            squares = x.x.multiply(x.x) if x.sparse else x.x.astype(np.float64) ** 2
            body = np.asarray(squares @ self._inverse_diagonal[:, : x.columns].T)
            yield body + (x.intercept**2) * self._inverse_diagonal[:, -1] if x.intercept else body

    def _diagonal(self) -> Array:
        problem = self.problem
        x, outputs = problem.features, problem.family.outputs
        squares: Any = x.x.multiply(x.x).tocsr() if x.sparse else x.x.astype(np.float64) ** 2
        second = np.stack([problem.weights * problem.derivatives.second(c, c) for c in range(outputs)], axis=1)
        data = np.asarray(squares.T @ second).T
        if x.intercept:
            data = np.hstack([data, x.intercept**2 * second.sum(axis=0)[:, None]])
        metric = np.diagonal(problem.family.metric())[:, None]
        return data + problem.ridge * metric * x.penalised + self.damping + 1e-300


def conjugate_gradients(
    matvec: Any, precondition: Any, b: Array, tolerance: float, most: int
) -> tuple[Array, float, int]:
    """Solve A x = b for b of shape (k, K, d), all k at once; (x, largest relative residual, steps).

    Hestenes & Stiefel (1952), preconditioned; a vector that has converged is no longer moved.
    """
    x, r = np.zeros_like(b), b.copy()
    size = np.sqrt(_inner(b, b))
    goal = tolerance * size
    z = precondition(r)
    p, rho = z.copy(), _inner(r, z)
    step = 0
    while step < most:
        active = np.sqrt(_inner(r, r)) > goal
        if not active.any():
            break
        step += 1
        ap = matvec(p)
        curvature = _inner(p, ap)
        alpha = np.where(active & (curvature > 0), rho / np.where(curvature > 0, curvature, 1.0), 0.0)
        x += alpha[:, None, None] * p
        r -= alpha[:, None, None] * ap
        z = precondition(r)
        rho, old = _inner(r, z), rho
        p = z + (rho / np.where(old > 0, old, 1.0))[:, None, None] * p
    left = np.sqrt(_inner(r, r)) / np.where(size > 0, size, 1.0)
    return x, float(left.max(initial=0.0)), step


def _inner(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("kcd,kcd->k", a, b))

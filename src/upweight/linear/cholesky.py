"""Direct solvers for the Hessian of a linear model: Cholesky, of the whole matrix or of one block per output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, lapack

from upweight.core.blocks import blocks
from upweight.core.matrix_products import expect_products
from upweight.linear.hessian_solver import HessianSolver
from upweight.linear.problem import Problem

Array = NDArray[np.float64]
TILE = 512  # side of the square tiles in which a triangle is mirrored


class JointCholesky(HessianSolver):
    """One Cholesky factorisation of all K·d parameters, for outputs that interact (softmax).

    The assembly is K(K+1)/2 symmetric rank-k updates of d²n floating-point operations each; the factorisation takes
    (Kd)³/3.
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
                block_position = (slice(c * width, (c + 1) * width), slice(k * width, (k + 1) * width))
                matrix[block_position] = block if c == k else np.tril(block) + np.tril(block, -1).T
        return matrix

    @property
    def height(self) -> int:
        """Number of parameters."""
        return self.problem.size

    def solve(self, vectors: Array) -> Array:
        """Two triangular solves per vector."""
        flat = vectors.reshape(len(vectors), self.problem.size).T
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


class BlockCholesky(HessianSolver):
    """One Cholesky factorisation per output, or a single one if all outputs share their second derivative."""

    name = "Cholesky, one block per output"

    def __init__(self, problem: Problem, damping: float) -> None:
        super().__init__(problem, damping)
        count = 1 if problem.family.is_quadratic else problem.family.outputs
        self.lowers = [self._cholesky(partial(self._block, c, c)) for c in range(count)]

    def solve(self, vectors: Array) -> Array:
        """Two triangular solves per vector and output."""
        out = np.empty_like(vectors)
        for c in range(vectors.shape[1]):
            lower = self.lowers[min(c, len(self.lowers) - 1)]
            out[:, c] = cho_solve((lower, True), vectors[:, c].T, check_finite=False).T
        return out

    def leverages(self, pieces: Sequence[slice]) -> Iterator[Array]:
        """Quadratic forms with the inverse of each block, (b, K)."""
        columns: list[list[Array]] = []
        for lower in self.lowers:
            with inverse_above(lower) as inverse:
                columns.append([self.problem.features.take(where).quadratic(inverse) for where in pieces])
        for piece in range(len(pieces)):
            by_output = [columns[min(c, len(columns) - 1)][piece] for c in range(self.problem.family.outputs)]
            yield np.stack(by_output, axis=1)


@contextmanager
def inverse_above(lower: Array) -> Iterator[Array]:
    """H⁻¹ in the unused upper triangle of the array of its Cholesky factor, so that no second matrix is held.

    Inside the context the diagonal is that of the inverse; afterwards it is that of the factor again.
    """
    diagonal = np.diagonal(lower).copy()
    for tile in blocks(len(lower), TILE):
        lower[tile, tile.stop :] = lower[tile.stop :, tile].T
        corner = lower[tile, tile]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
    expect_products(2 * len(lower) ** 3 / 3, 0.0)
    inverse, info = lapack.dpotri(lower, lower=0, overwrite_c=1)
    try:
        if info != 0 or not np.shares_memory(inverse, lower):
            raise np.linalg.LinAlgError("the Cholesky factor could not be inverted in place")
        yield lower
    finally:
        lower[np.diag_indices_from(lower)] = diagonal

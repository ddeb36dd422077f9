"""The interface of solvers with the Hessian of a linear model, and the Hessian's own products and blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import copy

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor

from upweight.core.matrix_products import expect_products
from upweight.linear.problem import Problem

Array = NDArray[np.float64]
ROUNDING = 1e-13  # a pivot below this share of its diagonal entry is a rounding error
JITTER = 1e-10  # what is added to a singular Hessian, relative to its mean diagonal
NOT_POSITIVE = (
    "the Hessian is not positive definite: the loss is not convex at these parameters; pass a larger damping, "
    "e.g. Influence(damping=1e-3)"
)


class HessianSolver(ABC):
    """H + λ and its inverse, applied to vectors of shape (k, K, d); H is the Hessian of the summed objective.

    Args:
        problem: the training objective, at the parameters where its Hessian is taken.
        damping: λ.

    Attributes:
        name: the method, for people.
        jitter: what was added to the diagonal because the Hessian is singular.
        steps, residual, converged: of the last iterative solve; 0, None and True for a direct solver.
    """

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
        """S_i = X̃ᵢ (H + λ)⁻¹ X̃ᵢᵀ for each piece of the examples: (b, K, K), or (b, K) if outputs do not interact.

        The Cholesky factor may be inverted in place during this iteration: solve before or after it, not in between.
        """

    def solve_approximately(self, vectors: Array) -> Array:
        """A fixed linear map close to `solve`, for use as a preconditioner."""
        return self.solve(vectors)

    def at(self, problem: Problem) -> HessianSolver:
        """The same solver at nearby parameters: products are exact there, the factorisation is the old one."""
        nearby = copy(self)
        nearby.problem = problem
        return nearby

    @property
    def height(self) -> int:
        """Rows of the largest factored matrix: a solve costs 2·height floating-point operations per parameter."""
        return self.problem.features.width

    @property
    def factorisation_cost(self) -> float:
        """Floating-point operations of the factorisation."""
        return self.problem.size**3 / 3

    def matvec(self, vectors: Array) -> Array:
        """(H + λ) v by two products with the features; it does not use the factorisation."""
        problem = self.problem
        count, outputs, width = vectors.shape
        n = len(problem.features)
        z = problem.features.times(vectors.reshape(-1, width).T).reshape(n, count, outputs)
        d = problem.derivatives
        curved = d.diagonal[:, None] * z
        if d.outer is not None:
            curved -= d.outer[:, None] * (d.outer[:, None] * z).sum(axis=-1, keepdims=True)
        curved *= problem.weights[:, None, None]
        product = problem.features.transposed_times(curved.reshape(n, -1)).T.reshape(vectors.shape)
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
        """Lower Cholesky factor, in place. A singular matrix is damped by a little, noted in `jitter`."""
        expect_products(self.height**3 / 3, 8.0 * self.height**2)
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
        raise np.linalg.LinAlgError(NOT_POSITIVE)

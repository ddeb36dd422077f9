"""The direct solver for the Hessian of a linear model on wide sparse features, such as words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from upweight.linear.column_elimination import EliminatedMatrix
from upweight.linear.hessian_solver import JITTER, NOT_POSITIVE, ROUNDING, HessianSolver
from upweight.linear.problem import Problem
from upweight.linear.selected_inverse import SelectedInverse
from upweight.linear.sparse_gram import gram_on, gram_pattern, with_intercept

Array = NDArray[np.float64]
MIN_PARAMETERS = 2000  # below, a dense factorisation takes less than a second
MAX_DENSITY = 0.1  # entries of the Hessian at most, as a share of all, counted as if no two rows had a pair in common


def is_eliminable(problem: Problem) -> bool:
    """Whether most columns meet few others, so that eliminating them is cheaper than a dense factorisation."""
    features = problem.features
    if not features.sparse or problem.size < MIN_PARAMETERS:
        return False
    counts = np.diff(features.x.indptr).astype(np.float64)
    return float(counts @ counts) <= MAX_DENSITY * features.width**2


class SparseCholesky(HessianSolver):
    """One factorisation per output, or a joint one for outputs that interact, with rare columns eliminated first."""

    name = "Cholesky, rare columns eliminated first"

    def __init__(self, problem: Problem, damping: float) -> None:
        super().__init__(problem, damping)
        family = problem.family
        self.is_joint = family.coupled and family.outputs > 1
        self._x = with_intercept(problem.features)
        self._pattern = gram_pattern(self._x)
        count = 1 if self.is_joint or family.is_quadratic else family.outputs
        self.factors = [self._factor(output) for output in range(count)]
        del self._x, self._pattern

    def solve(self, vectors: Array) -> Array:
        """A solve per vector with the joint factor, or per vector and output."""
        if self.is_joint:
            return self.factors[0].solve(vectors.reshape(len(vectors), -1)).reshape(vectors.shape)
        solved = [self.factors[min(c, len(self.factors) - 1)].solve(vectors[:, c]) for c in range(vectors.shape[1])]
        return np.stack(solved, axis=1)

    def leverages(self, pieces: Sequence[slice]) -> Iterator[Array]:
        """Quadratic forms with the inverse at pairs of columns that meet in a row: (b, K), or (b, K, K) if joint."""
        if self.is_joint:
            yield from self._joint_leverages(pieces)
            return
        by_factor: list[list[Array]] = []
        for factor in self.factors:
            with factor.core_inverse() as core:
                inverse = SelectedInverse(factor, core)
                by_factor.append([self.problem.features.take(where).quadratic_of(inverse.at) for where in pieces])
        for piece in range(len(pieces)):
            by_output = [by_factor[min(c, len(by_factor) - 1)][piece] for c in range(self.problem.family.outputs)]
            yield np.stack(by_output, axis=1)

    def _joint_leverages(self, pieces: Sequence[slice]) -> Iterator[Array]:
        outputs, width = self.problem.shape
        factor = self.factors[0]
        with factor.core_inverse() as core:
            inverse = SelectedInverse(factor, core)
            for where in pieces:
                features = self.problem.features.take(where)
                s = np.empty((len(features), outputs, outputs))
                for c in range(outputs):
                    for k in range(c, outputs):

                        def entries(
                            i: NDArray[np.integer], j: NDArray[np.integer], a: int = c * width, b: int = k * width
                        ) -> Array:
                            one_way = inverse.at(a + i, b + j)
                            return one_way if a == b else (one_way + inverse.at(a + j, b + i)) / 2

                        s[:, c, k] = s[:, k, c] = features.quadratic_of(entries)
                yield s

    @property
    def height(self) -> int:
        """The rows of a dense factor with which a solve would cost as much."""
        factor = self.factors[0]
        return max(1, 2 * factor.entries // factor.size)

    @property
    def factorisation_cost(self) -> float:
        """Floating-point operations of the dense factors, which take most of the time."""
        return sum(len(factor.core) ** 3 / 3 for factor in self.factors)

    def _factor(self, output: int) -> EliminatedMatrix:
        """The factorisation of one output, or of all; a singular matrix is damped by a little, noted in `jitter`."""
        matrix = self._assemble(range(self.problem.family.outputs) if self.is_joint else [output])
        diagonal = matrix.diagonal()
        for jitter in (0.0, JITTER):
            added = jitter * float(np.abs(diagonal).mean() or 1.0)
            damped = matrix.copy()
            damped.setdiag(diagonal + added)
            with suppress(np.linalg.LinAlgError):
                factor = EliminatedMatrix(damped)
                if jitter or factor.smallest_pivot(diagonal) > ROUNDING:
                    self.jitter = max(self.jitter, added)
                    return factor
        raise np.linalg.LinAlgError(NOT_POSITIVE)

    def _assemble(self, outputs: Sequence[int]) -> sparse.csr_matrix:
        """H + λ of these outputs, CSR, with an entry wherever two columns meet in a row."""
        problem, pattern = self.problem, self._pattern
        parts: dict[tuple[int, int], sparse.csr_matrix] = {}
        for c in outputs:
            for k in outputs:
                if k > c:
                    continue
                data = gram_on(pattern, self._x, problem.weights * problem.derivatives.second(c, k))
                block = sparse.csr_matrix((data, pattern.indices, pattern.indptr), pattern.shape)
                corner = problem.ridge * problem.family.metric()[c, k] * problem.features.penalised
                block.setdiag(block.diagonal() + corner + (self.damping if c == k else 0.0))
                parts[c, k] = parts[k, c] = block
        matrix = sparse.bmat([[parts[c, k] for k in outputs] for c in outputs], format="csr")
        matrix.sort_indices()
        return matrix

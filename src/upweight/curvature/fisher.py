"""The empirical Fisher Σ wᵢ gᵢgᵢᵀ in its dual form: an exact n × n system instead of p × p, with one Cholesky factor.

(λ + GᵀG)⁻¹ = (1/λ)(I − Gᵀ(λ + GGᵀ)⁻¹G). Scores only need the kernels q·gᵢ and gᵢ·gⱼ, which ghost products compute
without a parameter-sized vector (Woodbury; kernel ridge regression).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from upweight.core.curvature import Curvature, Solved
from upweight.core.rows import DenseRows, Rows
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.damping import (
    COMPARED_QUERIES,
    damping_from_trace,
    mean_rank_correlation,
    neighbouring_solutions,
)
from upweight.curvature.no_curvature import require_curvature
from upweight.curvature.summed_objective import SummedObjective
from upweight.curvature.training_positions import training_positions
from upweight.gradients.captured_rows import CapturedRows

Array = NDArray[np.float64]
MAX_EXAMPLES = 20_000  # largest training set whose Gram matrix is held


class TooManyExamplesError(ValueError):
    """The training set is too large for an n × n matrix."""


class FittedFisher(Curvature):
    """Empirical Fisher of the true labels plus a shift.

    If the objective has no `damping_from` yet, the damping is chosen from the trace of the Gram matrix.

    Cost: one pass, n² ghost products and n³/3 flops. Memory n².

    Raises:
        ValueError: there are more than 20,000 training examples.
    """

    def __init__(self, summed: SummedObjective, saved: SavedState = NOTHING_SAVED) -> None:
        n = len(summed.train)
        self.rank_correlation: dict[str, float] = {}
        if n > MAX_EXAMPLES:
            raise TooManyExamplesError(
                f"expected at most {MAX_EXAMPLES:,} training examples for the dual form (an n × n matrix), got {n:,}; "
                "use EKFAC()"
            )
        self.roots = np.sqrt(summed.weights)
        self.rows = CapturedRows(summed.network, summed.train, "loss", weights=self.roots).cached()
        if saved:
            self.summed, both = summed, saved.array("both", (n, n))
            self.gram = np.triu(both, 1)
            self.gram += self.gram.T
            self.gram[np.diag_indices(n)] = saved.array("diagonal", (n,))
            self.factor = np.asfortranarray(both), True  # what lies above the diagonal is not read
            return
        self.gram = self.rows.gram()
        if not summed.damping_from:
            damping, source = damping_from_trace(summed, float(np.trace(self.gram)))
            summed = replace(summed, damping=damping, damping_from=source)
        self.summed = summed
        require_curvature("EmpiricalFisher", summed.shift + float(np.trace(self.gram)))
        damped = self.gram.copy(order="F")
        damped[np.diag_indices(n)] += summed.shift
        try:
            self.factor = cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
        except LinAlgError as error:
            raise ValueError(
                f"the empirical Fisher with damping {summed.mean_damping:.3g} cannot be inverted: gradients of "
                "different examples are the same up to rounding; give a larger damping"
            ) from error

    def matvec(self, vectors: Array) -> Array:
        """GᵀG v + λ v."""
        outer = self.rows.project(np.ascontiguousarray(vectors.T)).T
        return self.rows.sums(outer).dense() + self.summed.shift * vectors

    def solve(self, rows: Rows) -> Solved:
        """(λ + GᵀG)⁻¹ rows as lazy rows: kernels are computed now, parameter vectors only when they are needed."""
        kernel = rows.dot(self.rows)
        dual = cho_solve(self.factor, kernel.T, check_finite=False).T
        if not self.rank_correlation and len(kernel):
            self.rank_correlation = self._rank_correlation(dual[:COMPARED_QUERIES])
        left = np.abs(dual @ self.gram + self.summed.shift * dual - kernel).max(initial=0.0)
        residual = float(left / max(np.abs(kernel).max(initial=0.0), 1e-300))
        return Solved(FisherRows(self, rows, kernel, dual), residual, 0, True)

    def state(self) -> SavedState:
        """The Cholesky factor of the Gram matrix, and the matrix itself above the diagonal of the same array."""
        both = np.tril(self.factor[0]) + np.triu(self.gram, 1)
        return self.summed.saved_state(self, SavedState({"both": both, "diagonal": self.gram.diagonal().copy()}))

    @property
    def calibrated(self) -> bool:
        """False: products of gradients are not second derivatives, whatever their scale."""
        return False

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Kind, solver, size, damping, and the rank correlation of scores at other dampings."""
        solver = f"dual form, Cholesky of {len(self.gram):,} × {len(self.gram):,}"
        facts = self.summed.diagnostics("empirical Fisher (true labels)", solver)
        return {**facts, "damping_rank_correlation": self.rank_correlation}

    def _rank_correlation(self, dual: Array) -> dict[str, float]:
        """Rank correlation of the scores with those at a third and at three times the damping."""

        def solve(x: Array) -> Array:
            return np.asarray(self.summed.shift * cho_solve(self.factor, x, check_finite=False))

        others = neighbouring_solutions(dual.T, solve)
        return {name: mean_rank_correlation(dual, other.T) for name, other in others.items()}


class FisherRows(Rows):
    """Rows (λ + GᵀG)⁻¹ q = (q − Gᵀ dual)/λ for rows q, stored as their kernels with the training rows."""

    def __init__(self, fisher: FittedFisher, rows: Rows, kernel: Array, dual: Array) -> None:
        self.fisher, self.rows, self.kernel, self.dual = fisher, rows, kernel, dual

    def __len__(self) -> int:
        return len(self.kernel)

    def dot(self, other: Rows) -> Array:
        """Inner products; with training rows by kernels alone, with other rows by one more pass."""
        shift = self.fisher.summed.shift
        where = training_positions(self.fisher.summed, other)
        if where is None or not isinstance(other, CapturedRows):
            return np.asarray((self.rows.dot(other) - self.dual @ self.fisher.rows.dot(other)) / shift)
        scale = other.weights / self.fisher.roots[where]  # the fitted rows carry √w, the other rows their own weight
        out = (self.kernel[:, where] - self.dual @ self.fisher.gram[:, where]) * scale
        if other.share is not None:
            common = self.fisher.summed.network.join({k: v[None] for k, v in other.share.items()}).T
            along = self.rows.project(common) - self.dual @ self.fisher.rows.project(common)
            out += along * other.weights
        return np.asarray(out / shift)

    def project(self, matrix: Array) -> Array:
        """`dense() @ matrix`."""
        projected = self.rows.project(matrix) - self.dual @ self.fisher.rows.project(matrix)
        return np.asarray(projected / self.fisher.summed.shift)

    def dense(self) -> Array:
        """(k, parameters), by one pass over the training set."""
        return (self.rows.dense() - self.fisher.rows.sums(self.dual).dense()) / self.fisher.summed.shift

    def take(self, positions: NDArray[np.intp]) -> FisherRows:
        """The rows at these positions."""
        return FisherRows(self.fisher, self.rows.take(positions), self.kernel[positions], self.dual[positions])

    def sums(self, membership: Array) -> DenseRows:
        """`membership @ dense()`."""
        return DenseRows(membership @ self.dense())

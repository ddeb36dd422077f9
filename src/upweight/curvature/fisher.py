"""The empirical Fisher Σ wᵢ gᵢgᵢᵀ in its dual form: n × n instead of p × p, exact, one Cholesky.

(λ + GᵀG)⁻¹ = (1/λ)(I − Gᵀ(λ + GGᵀ)⁻¹G). What scores need of it are kernels q·gᵢ and gᵢ·gⱼ, which ghost products give
without a parameter-sized vector (Woodbury; kernel ridge regression).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from upweight.core.curvature import Curvature, Solved
from upweight.core.rows import DenseRows, Rows
from upweight.curvature.damping import (
    COMPARED_QUERIES,
    damping_from_trace,
    mean_rank_correlation,
    neighbouring_solutions,
)
from upweight.curvature.solvers.dual import positions_in
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.captured_rows import CapturedRows

Array = NDArray[np.float64]
MAX_EXAMPLES = 20_000  # examples whose Gram matrix is held


class FittedFisher(Curvature):
    """Empirical Fisher of the true labels plus shift.

    Where the objective does not say where its damping comes from, it is chosen from the trace of the Gram matrix.

    Cost: one pass, n² ghost products, n³/3. Memory n². Raises ValueError beyond 20,000 examples.
    """

    def __init__(self, summed: SummedObjective) -> None:
        n = len(summed.train)
        if n > MAX_EXAMPLES:
            raise ValueError(
                f"expected at most {MAX_EXAMPLES:,} training examples for the dual form (an n × n matrix), got {n:,}; "
                "use EKFAC()"
            )
        self.roots = np.sqrt(summed.weights)
        self.rows = CapturedRows(summed.network, summed.train, "loss", weights=self.roots).cached()
        self.gram = self.rows.gram()
        if not summed.damping_from:
            chosen, source = damping_from_trace(summed, float(np.trace(self.gram)))
            summed = replace(summed, damping=chosen, damping_from=source)
        self.summed = summed
        damped = self.gram.copy(order="F")
        damped[np.diag_indices(n)] += summed.shift
        self.factor = cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
        self.rank_correlation: dict[str, float] = {}

    def matvec(self, vectors: Array) -> Array:
        """GᵀG v + λ v."""
        outer = self.rows.project(np.ascontiguousarray(vectors.T)).T
        return self.rows.sums(outer).dense() + self.summed.shift * vectors

    def solve(self, rows: Rows) -> Solved:
        """Lazily: kernels with the training rows now, parameter vectors only if somebody asks for them."""
        kernel = rows.dot(self.rows)
        dual = cho_solve(self.factor, kernel.T, check_finite=False).T
        if not self.rank_correlation and len(kernel):
            self.rank_correlation = self._rank_correlation(dual[:COMPARED_QUERIES])
        left = np.abs(dual @ self.gram + self.summed.shift * dual - kernel).max(initial=0.0)
        residual = float(left / max(np.abs(kernel).max(initial=0.0), 1e-300))
        return Solved(FisherRows(self, rows, kernel, dual), residual, 0, True)

    @property
    def calibrated(self) -> bool:
        """False: products of gradients are not second derivatives, whatever their scale."""
        return False

    @property
    def diagnostics(self) -> dict[str, Any]:
        """What was built."""
        return {
            "curvature": "empirical Fisher (true labels)",
            "solver": f"dual form, Cholesky of {len(self.gram):,} × {len(self.gram):,}",
            "parameters": self.summed.network.size,
            "damping": self.summed.mean_damping,
            "damping_from": self.summed.damping_from,
            "damping_rank_correlation": self.rank_correlation,
        }

    def _rank_correlation(self, dual: Array) -> dict[str, float]:
        """How far scores keep their order at a third of the damping and at three times as much."""
        others = neighbouring_solutions(
            dual.T, lambda x: self.summed.shift * cho_solve(self.factor, x, check_finite=False)
        )
        return {name: mean_rank_correlation(dual, other.T) for name, other in others.items()}


class FisherRows(Rows):
    """(λ + GᵀG)⁻¹ q = (q − Gᵀ dual)/λ for rows q, as their kernels with the training rows."""

    def __init__(self, fisher: FittedFisher, rows: Rows, kernel: Array, dual: Array) -> None:
        self.fisher, self.rows, self.kernel, self.dual = fisher, rows, kernel, dual

    def __len__(self) -> int:
        return len(self.kernel)

    def dot(self, other: Rows) -> Array:
        """With training rows by kernels alone; with others by one more pass."""
        shift = self.fisher.summed.shift
        where = self._training_positions(other)
        if where is None or not isinstance(other, CapturedRows):
            return np.asarray((self.rows.dot(other) - self.dual @ self.fisher.rows.dot(other)) / shift)
        scale = other.weights / self.fisher.roots[where]  # ours carry √w, theirs their own weight
        out = (self.kernel[:, where] - self.dual @ self.fisher.gram[:, where]) * scale
        if other.share is not None:
            common = self.fisher.summed.network.join({k: v[None] for k, v in other.share.items()}).T
            along = self.rows.project(common) - self.dual @ self.fisher.rows.project(common)
            out += along * other.weights
        return np.asarray(out / shift)

    def project(self, matrix: Array) -> Array:
        """`dense() @ matrix`."""
        ours = self.rows.project(matrix) - self.dual @ self.fisher.rows.project(matrix)
        return np.asarray(ours / self.fisher.summed.shift)

    def dense(self) -> Array:
        """(k, parameters): one pass over the training set."""
        return (self.rows.dense() - self.fisher.rows.sums(self.dual).dense()) / self.fisher.summed.shift

    def take(self, positions: NDArray[np.intp]) -> FisherRows:
        """These rows."""
        return FisherRows(self.fisher, self.rows.take(positions), self.kernel[positions], self.dual[positions])

    def sums(self, member: Array) -> DenseRows:
        """`member @ dense()`."""
        return DenseRows(member @ self.dense())

    def _training_positions(self, other: Rows) -> NDArray[np.intp] | None:
        """Where these are rows of the training set, None where they are not."""
        summed = self.fisher.summed
        if (
            not isinstance(other, CapturedRows)
            or other.quantity != "loss"
            or other.slopes is not None
            or other.network is not summed.network
        ):
            return None
        if other.examples is summed.train:
            return np.arange(len(summed.train))
        return positions_in(summed.train, other)

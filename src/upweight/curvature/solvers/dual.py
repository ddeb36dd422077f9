"""The dual form: the Gauss–Newton inverse through the Gram matrix of its roots, without parameter-sized vectors."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.curvature import Solved
from upweight.core.rows import DenseRows, Rows
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.damping import COMPARED_QUERIES, mean_rank_correlation, neighbouring_solutions
from upweight.curvature.leverage import SavedSlopes, leave_one_out, with_added_slopes
from upweight.curvature.no_curvature import NOTHING_TO_INVERT, NoCurvatureError
from upweight.curvature.saved_tensors import as_array, as_tensor
from upweight.curvature.solvers.algebra import norms, to_numpy
from upweight.curvature.solvers.roots import Roots
from upweight.curvature.solvers.solution import CONVERGED_RESIDUAL, relative_residual
from upweight.curvature.training_positions import training_positions
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]
PROBED_ROWS = 4  # rows whose residual is measured with the whole operator


@final
class DualForm:
    """(ΦᵀΦ + shift)⁻¹ q = (q − Φᵀ α) / shift with α = (ΦΦᵀ + shift)⁻¹ Φ q (Woodbury), Φ the `Roots` of the matrix.

    Cost: N² ghost products and N³/3 flops once, memory N². Exact except for the share of the trace that Φ leaves out.
    A shift that is too small for ΦΦᵀ in the net's precision is raised, which `warnings` reports.

    Attributes:
        name: the name of the solver in diagnostics.
        shift: what is added to the diagonal.
        rank_correlation: rank correlation of scores with those at a third of the shift and at three times as much.
    """

    def __init__(self, roots: Roots, saved: SavedState = NOTHING_SAVED) -> None:
        self.roots, self.network = roots, roots.network
        self.operator, self.shift = roots.operator, roots.operator.shift
        self.name = f"dual form, Cholesky of {len(roots):,} × {len(roots):,}, {roots.share:.1%} of the output curvature"
        self._notes: list[str] = []
        self.rank_correlation: dict[str, float] = {}
        self._residual: float | None = None
        self._train_kernel: Array | None = None
        self._leverage = SavedSlopes(saved)
        if saved:
            size = len(roots)
            self._factor: Tensor = as_tensor(saved, "factor", (size, size), self.network)
            self.shift, self._notes = float(saved.facts["shift"]), list(map(str, saved.facts["notes"]))
            if "kernel" in saved.arrays:
                self._train_kernel = saved.array("kernel", (size, len(self.operator.summed.train)))
            return
        gram = roots.gram()
        floor = 10 * torch.finfo(self.network.precision).eps * float(gram.norm())
        if self.shift == floor == 0.0:
            raise NoCurvatureError(NOTHING_TO_INVERT)
        if self.shift <= floor:
            total = self.operator.total
            self._notes.append(
                f"The damping {self.shift / total:.2g} is lost in the rounding of the Gram matrix and was raised to "
                f"{2 * floor / total:.2g} (mean loss); a net in float64 (net.double()) needs less."
            )
            self.shift = 2 * floor
        gram.diagonal().add_(self.shift)
        self._factor = torch.linalg.cholesky(gram, out=gram)

    def state(self) -> SavedState:
        """The roots, the factor of their Gram matrix, and their products with the training gradients."""
        arrays = {"factor": as_array(self._factor), **self._leverage.arrays()}
        if self._train_kernel is not None:
            arrays["kernel"] = self._train_kernel
        own = SavedState(arrays, {"shift": self.shift, "notes": self._notes})
        roots = SavedState.joined({"roots": self.roots.state()})
        return SavedState({**own.arrays, **roots.arrays}, {**own.facts, **roots.facts})

    @property
    def warnings(self) -> list[str]:
        """Sentences about a raised damping and a residual that is not small."""
        if self._residual is None or self._residual <= CONVERGED_RESIDUAL:
            return list(self._notes)
        return [
            *self._notes,
            f"The dual form left a relative residual of {self._residual:.2g}: directions of little output curvature "
            "matter at this damping; use CG().",
        ]

    def matvec(self, vectors: Array) -> Array:
        """(A + shift) v with the whole operator."""
        product = self.operator.product(self.network.split(vectors))
        return self.network.join(product) + self.shift * np.asarray(vectors, dtype=np.float64)

    def solve(self, rows: Rows) -> Solved:
        """(A + shift)⁻¹ rows as lazy rows; the residual is measured once, on the first rows, with the whole A."""
        # For solutions of this form, Φ rowsᵀ is already known.
        kernel = rows.alpha if isinstance(rows, DualRows) and rows.dual is self else self.roots.dot(rows)
        solved = DualRows(self, rows, self._solve_gram(kernel))
        if self._residual is None:
            probe = np.arange(min(PROBED_ROWS, len(rows)))
            self._residual = self._residual_of(solved.take(probe).blocks(), rows.take(probe))
        return Solved(solved, self._residual, 0, self._residual <= CONVERGED_RESIDUAL)

    def compare_dampings(self, scores: Array, plain: Array, kernel: Array, alpha: Array) -> None:
        """Set `rank_correlation`: of the first scores with those at a third and at three times the damping."""
        if self.rank_correlation or scores.shape[1] < 2:
            return

        def solve(x: Array) -> Array:
            return self.shift * self._solve_gram(x)

        for name, other in neighbouring_solutions(alpha[:, :COMPARED_QUERIES], solve).items():
            self.rank_correlation[name] = mean_rank_correlation(
                scores[:COMPARED_QUERIES], plain[:COMPARED_QUERIES] - other.T @ kernel
            )

    def _solve_gram(self, right: Array) -> Array:
        """(ΦΦᵀ + shift)⁻¹ right, (N, k)."""
        return to_numpy(torch.cholesky_solve(torch.from_numpy(right).to(self._factor), self._factor))

    def kernel(self, rows: Rows) -> Array:
        """Φ rowsᵀ, (N, len(rows)); for training examples from a kernel that is computed once."""
        positions = training_positions(self.operator.summed, rows)
        if positions is None or not isinstance(rows, CapturedRows):
            return self.roots.dot(rows)
        if self._train_kernel is None:
            self._train_kernel = self.roots.dot(CapturedRows(self.network, self.operator.summed.train, "loss"))
        return np.asarray(self._train_kernel[:, positions] * rows.weights + self.roots.share_products(rows))

    def corrected(self, rows: Rows) -> CapturedRows | None:
        """Rows of training examples with the leverage correction, from blocks of (ΦΦᵀ + shift)⁻¹; None for other rows.

        With Φᵢ the roots of example i, I − Φᵢ(A + shift)⁻¹Φᵢᵀ = shift · [(ΦΦᵀ + shift)⁻¹]ᵢᵢ.
        """
        return self._leverage.corrected(rows, lambda: self._corrected(rows))

    def _corrected(self, rows: Rows) -> CapturedRows | None:
        positions = training_positions(self.operator.summed, rows)
        if positions is None or not isinstance(rows, CapturedRows):
            return None
        inverse = torch.cholesky_inverse(self._factor)
        solved_kernel = self._solve_gram(self.kernel(rows))
        order = np.argsort(self.roots.positions, kind="stable")
        starts = np.searchsorted(self.roots.positions[order], np.arange(len(self.operator.summed.train) + 1))
        added = np.zeros((len(rows), self.operator.outputs_per_example))
        for i, position in enumerate(positions):
            if rows.weights[i] > 0:
                roots = order[starts[position] : starts[position + 1]]
                leverages = np.eye(len(roots)) - self.shift * to_numpy(inverse[np.ix_(roots, roots)])
                v = leave_one_out(leverages[None], solved_kernel[roots, i][None])[0]
                added[i] = v @ self.roots.cotangents[roots] / rows.weights[i]
        return with_added_slopes(rows, added)

    def _residual_of(self, x: dict[str, Tensor], rows: Rows) -> float:
        right = TensorRows.of(self.network, rows).blocks
        remainder = self.operator.product(x)
        for name, block in remainder.items():
            block.add_(x[name], alpha=self.shift).sub_(right[name])
        return float(relative_residual(norms(remainder), norms(right)).max())


@final
class DualRows(Rows):
    """Rows (q − Φᵀ α) / shift for rows q, α (N, len(q)).

    Inner products use kernels; parameter-sized vectors are computed only when they are needed.
    """

    def __init__(self, dual: DualForm, rows: Rows, alpha: Array) -> None:
        self.dual, self.rows, self.alpha = dual, rows, alpha

    def __len__(self) -> int:
        return int(self.alpha.shape[1])

    def dot(self, other: Rows) -> Array:
        """Inner products; with captured rows by ghost products alone."""
        if isinstance(other, DualRows):
            other = TensorRows(self.dual.network, other.blocks())
        plain, kernel = self.rows.dot(other), self.dual.kernel(other)
        products = np.asarray((plain - self.alpha.T @ kernel) / self.dual.shift)
        self.dual.compare_dampings(products, plain, kernel, self.alpha)
        return products

    def project(self, matrix: Array) -> Array:
        """`dense() @ matrix`."""
        return self.dot(DenseRows(np.ascontiguousarray(np.asarray(matrix).T)))

    def blocks(self) -> dict[str, Tensor]:
        """The rows as name → (len, *shape), by one more pass over the roots."""
        right = TensorRows.of(self.dual.network, self.rows).blocks
        out = self.dual.roots.sums(self.alpha.T)
        return {name: (right[name] - block) / self.dual.shift for name, block in out.items()}

    def dense(self) -> Array:
        """(len, parameters)."""
        return self.dual.network.join(self.blocks())

    def take(self, positions: NDArray[np.intp]) -> DualRows:
        """The rows at these positions."""
        return DualRows(self.dual, self.rows.take(positions), self.alpha[:, positions])

    def sums(self, membership: Array) -> DenseRows:
        """`membership @ dense()`, without dense()."""
        membership = np.asarray(membership, dtype=np.float64)
        return DenseRows(DualRows(self.dual, self.rows.sums(membership), self.alpha @ membership.T).dense())

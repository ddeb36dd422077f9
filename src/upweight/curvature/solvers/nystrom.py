"""The Nyström solver: a randomised low-rank approximation, inverted by Woodbury; also a preconditioner."""

from __future__ import annotations

from typing import final

import torch

from upweight.core.curvature_recipes import Nystrom
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.operators import Blocks, Operator
from upweight.curvature.saved_tensors import as_array, as_tensor
from upweight.curvature.solvers.algebra import standard_normal, to_blocks, to_matrix
from upweight.curvature.solvers.solution import CONVERGED_RESIDUAL, PreparedSolver, Solution


@final
class NystromSolver(PreparedSolver):
    """A ≈ AΩ (ΩᵀAΩ)⁻¹ (AΩ)ᵀ = U Λ Uᵀ for a random Ω of `rank` columns (Frangella, Tropp & Udell 2023, algorithm 2.1).

    x = U (Λ + shift)⁻¹ Uᵀ b + (b − U Uᵀ b) / shift. It takes `rank` products once and holds size·rank numbers. A must
    be positive semidefinite: directions in which the sketch is not are left out, which `notes` reports.

    Attributes:
        values: Λ, (rank,) in float64, descending.
        vectors: U, (rank, size).

    Raises:
        ValueError: there is no damping, so that the inverse is undefined on directions outside U.
    """

    def __init__(self, operator: Operator, recipe: Nystrom, saved: SavedState = NOTHING_SAVED) -> None:
        rank = min(recipe.rank, operator.size)
        super().__init__(operator, f"Nyström, rank {rank}")
        if operator.shift <= 0:
            raise ValueError("the Nyström solver needs a damping or an l2 above zero; give one or use CG()")
        network = operator.network
        if saved:
            self.vectors = as_tensor(saved, "vectors", (None, operator.size), network)
            self.values = as_tensor(saved, "values", (len(self.vectors),), network)
            self.notes = tuple(map(str, saved.facts["notes"]))
            return
        random = standard_normal(network, rank, torch.Generator().manual_seed(recipe.seed))
        omega = torch.linalg.qr(random.T)[0]  # (size, rank)
        del random
        sketch = to_matrix(network, operator.product(to_blocks(network, omega.T))).T
        # a small multiple of the identity keeps the core positive under rounding; it is subtracted again at the end
        nu = float(torch.finfo(network.precision).eps * sketch.norm())
        sketch += nu * omega
        core = (omega.T @ sketch).double()
        spectrum, rotation = torch.linalg.eigh((core + core.T) / 2)
        del omega
        if float(spectrum[0]) < -10 * nu:
            self.notes = (
                self.negative_curvature_note(f"at least {int((spectrum < -10 * nu).sum())}", float(spectrum[0]))
                + " Nyström assumes a positive semidefinite curvature; use GaussNewton() or CG().",
            )
        positive = spectrum > max(1e-3 * nu, 1e-15 * float(spectrum[-1]))
        sketch = sketch @ (rotation[:, positive] / spectrum[positive].sqrt()).to(sketch)
        left, sizes, _ = torch.linalg.svd(sketch, full_matrices=False)
        self.values = (sizes.double() ** 2 - nu).clamp_min(0.0)
        self.vectors = left.T.contiguous()

    def state(self) -> SavedState:
        """Λ and U."""
        return SavedState({"values": as_array(self.values), "vectors": as_array(self.vectors)}, {"notes": self.notes})

    @property
    def condition(self) -> float:
        """About the condition number that `precondition` leaves, (λ_r + ‖A − UΛUᵀ‖ + shift)/shift.

        The expected error of a sketch of rank r is 3 λ_{r/2} and a part of the eigenvalues beyond, which are not known.
        """
        error = 3 * float(self.values[len(self.values) // 2]) if len(self.values) else 0.0
        return (self._least + error + self.shift) / self.shift

    @property
    def _least(self) -> float:
        """λ_r; 0 if the curvature is."""
        return float(self.values[-1]) if len(self.values) else 0.0

    def solve(self, blocks: Blocks) -> Solution:
        """(U Λ Uᵀ + shift)⁻¹ b; the residual measures what the sketch missed."""
        x = self.inverse(blocks)
        residual = float(self.residuals(x, blocks).max())
        return Solution(x, residual, 0, residual <= CONVERGED_RESIDUAL, self.notes)

    def inverse(self, blocks: Blocks) -> dict[str, torch.Tensor]:
        """(U Λ Uᵀ + shift)⁻¹ b by Woodbury."""
        network = self.operator.network
        b = to_matrix(network, blocks)
        along = b @ self.vectors.T
        change = 1 / (self.values + self.shift) - 1 / self.shift
        return to_blocks(network, b / self.shift + (along * change.to(along)) @ self.vectors)

    def precondition(self, blocks: Blocks) -> dict[str, torch.Tensor]:
        """U (λ_r + shift)(Λ + shift)⁻¹ Uᵀ b + b − U Uᵀ b, for conjugate gradients: outside U, A counts as λ_r."""
        network = self.operator.network
        b = to_matrix(network, blocks)
        along = b @ self.vectors.T
        change = (self._least + self.shift) / (self.values + self.shift) - 1
        return to_blocks(network, b + (along * change.to(along)) @ self.vectors)

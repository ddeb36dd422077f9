"""The Arnoldi solver: the largest eigenpairs from a Krylov space, and the inverse restricted to them."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from upweight.core.curvature_recipes import Arnoldi
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.operators import Blocks, Operator
from upweight.curvature.saved_tensors import as_array, as_tensor
from upweight.curvature.solvers.algebra import standard_normal, to_blocks, to_matrix
from upweight.curvature.solvers.solution import CONVERGED_RESIDUAL, PreparedSolver, Solution


@final
class ArnoldiSolver(PreparedSolver):
    """x = U (Λ + shift)⁻¹ Uᵀ b with the `rank` eigenpairs of A that are largest in size (Schioppa et al. 2022).

    What lies outside U has no effect, so the residual measures the truncation. It takes `steps` products once. Pairs
    with a negative λ + shift are left out too, which `notes` reports.

    Attributes:
        values: Λ, (rank,) in float64.
        vectors: U, (rank, size).
    """

    def __init__(self, operator: Operator, recipe: Arnoldi, saved: SavedState = NOTHING_SAVED) -> None:
        super().__init__(operator, "Arnoldi")
        if saved:
            self.vectors = as_tensor(saved, "vectors", (None, operator.size), operator.network)
            self.values = as_tensor(saved, "values", (len(self.vectors),), operator.network)
            self.notes = tuple(map(str, saved.facts["notes"]))
            self.name = f"Arnoldi, rank {len(self.vectors)}"
            return
        basis, projected = lanczos(operator, min(recipe.steps, operator.size), recipe.seed)
        values, rotation = torch.linalg.eigh(projected)
        floor = 10 * torch.finfo(basis.dtype).eps * float(values.abs().max())
        if float(values[0]) < -floor:
            self.notes = (
                self.negative_curvature_note(f"at least {int((values < -floor).sum())}", float(values[0]))
                + " Arnoldi leaves out directions whose curvature stays negative with the damping.",
            )
        order = torch.argsort(values.abs(), descending=True)[: recipe.rank]
        order = order[values[order] + operator.shift > floor]
        self.values = values[order]
        self.vectors = rotation[:, order].T.to(basis) @ basis
        self.name = f"Arnoldi, rank {len(order)}"

    def state(self) -> SavedState:
        """Λ and U."""
        return SavedState({"values": as_array(self.values), "vectors": as_array(self.vectors)}, {"notes": self.notes})

    def solve(self, blocks: Blocks) -> Solution:
        """U (Λ + shift)⁻¹ Uᵀ b."""
        network = self.operator.network
        along = to_matrix(network, blocks) @ self.vectors.T
        x = to_blocks(network, (along / (self.values + self.shift).to(along)) @ self.vectors)
        residual = float(self.residuals(x, blocks).max())
        return Solution(x, residual, 0, residual <= CONVERGED_RESIDUAL, self.notes)


def lanczos(operator: Operator, steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """(orthonormal rows V (steps, size), V A Vᵀ in float64) by Lanczos with full reorthogonalisation.

    If the space becomes invariant before `steps` are taken (A has few distinct eigenvalues), a new random direction
    continues it, so that eigenvalues are found with their multiplicity.
    """
    network = operator.network
    generator = torch.Generator().manual_seed(seed)
    basis = torch.zeros(steps, operator.size, dtype=network.precision, device=network.device)
    projected = torch.zeros(steps, steps, dtype=torch.float64, device=network.device)
    rounding = 100 * torch.finfo(network.precision).eps
    direction = standard_normal(network, 1, generator)[0]
    for step in range(steps):
        direction = _orthogonalise(direction, basis[:step])
        basis[step] = direction / direction.norm()
        product = to_matrix(network, operator.product(to_blocks(network, basis[step : step + 1])))[0]
        along = (basis[: step + 1] @ product).double()
        projected[: step + 1, step] = projected[step, : step + 1] = along
        direction = _orthogonalise(product, basis[: step + 1])
        if float(direction.norm()) <= rounding * float(projected.abs().max()):
            direction = standard_normal(network, 1, generator)[0]
    return basis, projected


def _orthogonalise(vector: Tensor, basis: Tensor) -> Tensor:
    """The vector minus its projection on the rows of basis, done twice because of rounding."""
    for _ in range(2):
        vector = vector - (basis @ vector) @ basis
    return vector

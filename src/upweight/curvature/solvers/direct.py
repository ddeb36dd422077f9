"""The direct solver: the matrix is assembled, from its roots or by products with unit vectors, and factored once."""

from __future__ import annotations

from typing import Protocol, final

import torch
from torch import Tensor

from upweight.core.blocks import blocks as slices
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.linear_head import linear_head_matrix
from upweight.curvature.no_curvature import NOTHING_TO_INVERT, NoCurvatureError
from upweight.curvature.operators import Blocks, GaussNewtonOperator, Operator
from upweight.curvature.saved_tensors import as_array, as_tensor
from upweight.curvature.solvers.algebra import to_blocks, to_matrix
from upweight.curvature.solvers.factorisation import cholesky, cholesky_solve
from upweight.curvature.solvers.roots import Roots
from upweight.curvature.solvers.solution import CONVERGED_RESIDUAL, PROBED_COLUMNS, PreparedSolver, Solution
from upweight.gradients.inspection import inspect
from upweight.gradients.network import Network

MAX_UNIT_NUMBERS = 1 << 24  # numbers of the unit vectors multiplied at a time
INVERSE_STEPS = 2  # of inverse iteration for the lowest eigenvalue


@final
class CholeskySolver(PreparedSolver):
    """A + shift = L Lᵀ in float64: exact, and p³/3 flops once.

    Assembling the matrix takes p products. A single layer needs none, and a Gauss–Newton matrix one pass per output.

    A matrix that is not positive definite is damped until it is. The shift becomes twice the size of the lowest
    eigenvalue, so that along its eigenvector the curvature keeps its size and changes its sign. `notes` reports how
    many eigenvalues were negative and what was added.

    Raises:
        ValueError: there are too many parameters for a matrix, or neither a curvature nor a damping.
    """

    def __init__(self, operator: Operator, saved: SavedState = NOTHING_SAVED) -> None:
        super().__init__(operator, "Cholesky")
        self._residual: float | None = None
        if saved:
            self._factor: Tensor = as_tensor(saved, "factor", (operator.size, operator.size), operator.network)
            self.shift, self.notes = float(saved.facts["shift"]), tuple(map(str, saved.facts["notes"]))
            return
        largest = operator.summed.limits.matrix_parameters
        if operator.size > largest:
            raise ValueError(
                f"a direct solver makes a matrix of up to {largest:,} × {largest:,} numbers, the net has "
                f"{operator.size:,} parameters; use solver=CG()"
            )
        matrix = linear_head_matrix(operator.summed)
        matrix = _matrix_from_roots(operator) if matrix is None else matrix
        matrix = assemble(operator) if matrix is None else matrix
        # the size of rounding errors that the products may have left on the diagonal
        floor = 10 * torch.finfo(operator.network.precision).eps * float(matrix.norm())
        factor = _factor(matrix, operator.shift, floor) if operator.shift > floor else None
        if factor is None:
            if operator.shift <= floor or not _is_positive_definite(matrix, operator.shift - floor):
                self._raise_shift(matrix, floor)
            matrix.diagonal().add_(self.shift)
            factor = cholesky(matrix)
            if factor is None:
                raise NoCurvatureError(NOTHING_TO_INVERT)
        self._factor = factor

    def state(self) -> SavedState:
        """The factor L, and what the shift was raised to."""
        return SavedState({"factor": as_array(self._factor)}, {"shift": self.shift, "notes": self.notes})

    def solve(self, blocks: Blocks) -> Solution:
        """L⁻ᵀ L⁻¹ b. The residual is measured once, on the first columns: it is about the same for all."""
        network = self.operator.network
        b = to_matrix(network, blocks).double()
        x = to_blocks(network, cholesky_solve(b, self._factor))
        if self._residual is None:
            self._residual = float(self.residuals(x, blocks, PROBED_COLUMNS).max())
        return Solution(x, self._residual, 0, self._residual <= CONVERGED_RESIDUAL, self.notes)

    def _raise_shift(self, matrix: Tensor, floor: float) -> None:
        values = torch.linalg.eigvalsh(matrix)
        lowest, negative = float(values[0]), int((values < -floor).sum())
        if lowest + self.shift > floor:
            return
        self.shift = max(self.shift, 2 * abs(lowest), 2 * floor)
        if self.shift == 0.0:
            raise NoCurvatureError(NOTHING_TO_INVERT)
        total = self.operator.total
        added = (
            f"the diagonal was raised from {self.operator.shift / total:.2g} to {self.shift / total:.2g} (mean loss)"
        )
        if negative:
            self.notes = (f"{self.negative_curvature_note(str(negative), lowest)} To invert it {added}.",)
        else:
            self.notes = (f"The curvature is singular to rounding: {added}.",)


def _matrix_from_roots(operator: Operator, share: float = 1.0) -> Tensor | None:
    """The Gauss–Newton matrix by one pass over the data per output; None if products are cheaper or needed."""
    if not isinstance(operator, GaussNewtonOperator) or operator.outputs_per_example >= operator.size:
        return None
    train = operator.summed.train
    if (
        len(train) * operator.outputs_per_example**2 > operator.summed.limits.hessian_numbers
        or inspect(operator.network, "loss", train).fallback
    ):
        return None  # gradients of parameters that hooks cannot see are computed example by example
    roots = Roots(operator, share)
    return roots.squared() if roots.convex else None


def strongest_part(operator: GaussNewtonOperator, share: float) -> Tensor | None:
    """The part of the Gauss–Newton matrix with this share of the output Hessians' trace, without the shift.

    None if it cannot be assembled by one pass over the data per direction, or has too many parameters.
    """
    fits = operator.size <= operator.summed.limits.dense_parameters
    return _matrix_from_roots(operator, share) if fits else None


class ProductOperator(Protocol):
    """An operator whose matrix can be assembled from products."""

    network: Network
    size: int

    def product(self, blocks: Blocks) -> dict[str, Tensor]:
        """A v."""


def assemble(operator: ProductOperator) -> Tensor:
    """A without the shift, (size, size) in float64, symmetric."""
    network, size = operator.network, operator.size
    matrix = torch.empty(size, size, dtype=torch.float64, device=network.device)
    width = max(1, MAX_UNIT_NUMBERS // size)
    for where in slices(size, width):
        columns = torch.arange(where.start, where.stop)
        units = torch.zeros(len(columns), size, dtype=network.precision, device=network.device)
        units[torch.arange(len(columns)), columns] = 1.0
        matrix[where] = to_matrix(network, operator.product(to_blocks(network, units)))
    return matrix.add_(matrix.T.clone()).div_(2)


def _factor(matrix: Tensor, shift: float, floor: float) -> Tensor | None:
    """L of A + shift if its lowest eigenvalue is clearly above `floor`; None if it is not, or nearly.

    A few steps of inverse iteration find that eigenvalue up to a factor of size^(1/2 steps), and spare a second
    factorisation.
    """
    shifted = matrix.clone()
    shifted.diagonal().add_(shift)
    factor = cholesky(shifted)
    if factor is None:
        return None
    size, growth = len(matrix), 1.0
    vector = torch.randn(1, size, generator=torch.Generator().manual_seed(0), dtype=matrix.dtype).to(matrix.device)
    for _ in range(INVERSE_STEPS):
        vector = cholesky_solve(vector / vector.norm(), factor)
        growth = float(vector.norm())
    margin = float(max(size, 2)) ** (1 / (2 * INVERSE_STEPS))
    return factor if 1 / growth > 2 * margin * floor else None


def _is_positive_definite(matrix: Tensor, shift: float) -> bool:
    shifted = matrix.clone()
    shifted.diagonal().add_(shift)
    return cholesky(shifted) is not None

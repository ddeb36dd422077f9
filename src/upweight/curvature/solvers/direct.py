"""Direct: the matrix, assembled from its roots or by products with unit vectors, and factored once."""

from __future__ import annotations

from typing import Protocol, final

import torch
from torch import Tensor

from upweight.curvature.linear_head import linear_head_matrix
from upweight.curvature.operators import Blocks, GaussNewtonOperator, Operator
from upweight.curvature.solvers.algebra import to_blocks, to_matrix
from upweight.curvature.solvers.roots import MAX_HESSIAN_NUMBERS, Roots
from upweight.curvature.solvers.solution import CONVERGED_RESIDUAL, PROBED_COLUMNS, PreparedSolver, Solution
from upweight.gradients.inspection import inspect
from upweight.gradients.network import Network

MAX_MATRIX_PARAMETERS = 15_000  # parameters up to which a matrix is made: 1.8 GB
NOTHING_TO_INVERT = "the loss has no curvature here and there is no damping, so nothing can be inverted; give a damping"
MAX_UNIT_NUMBERS = 1 << 24  # numbers of the unit vectors multiplied at a time


@final
class CholeskySolver(PreparedSolver):
    """A + shift = L Lᵀ in float64: exact, and p³/3 flops once.

    Before it p products; none for a single layer, and for a Gauss–Newton matrix as many passes as outputs.

    A matrix that is not positive definite is damped until it is: the shift becomes twice the size of the lowest
    eigenvalue, so that along it the curvature keeps its size and changes its sign; `notes` says how many eigenvalues
    were negative and what was added.

    Raises:
        ValueError: more parameters than a matrix has room for; neither curvature nor damping.
    """

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator, "Cholesky")
        if operator.size > MAX_MATRIX_PARAMETERS:
            raise ValueError(
                f"a direct solver makes a matrix of up to {MAX_MATRIX_PARAMETERS:,} × {MAX_MATRIX_PARAMETERS:,} "
                f"numbers, the net has {operator.size:,} parameters; use solver=CG()"
            )
        matrix = linear_head_matrix(operator.summed)
        matrix = _by_roots(operator) if matrix is None else matrix
        matrix = assemble(operator) if matrix is None else matrix
        # what rounding in the products can have put on the diagonal, either way
        floor = 10 * torch.finfo(operator.network.precision).eps * float(matrix.norm())
        if operator.shift <= floor or not _positive(matrix, operator.shift - floor):
            self._raise(matrix, floor)
        matrix.diagonal().add_(self.shift)
        self._factor: Tensor = torch.linalg.cholesky(matrix, out=matrix)
        self._residual: float | None = None

    def solve(self, blocks: Blocks) -> Solution:
        """L⁻ᵀ L⁻¹ b; a factorisation errs alike for all columns: the residual is that of the first ones met."""
        network = self.operator.network
        b = to_matrix(network, blocks).double()
        x = to_blocks(network, torch.cholesky_solve(b.T, self._factor).T)
        if self._residual is None:
            self._residual = float(self.residuals(x, blocks, PROBED_COLUMNS).max())
        return Solution(x, self._residual, 0, self._residual <= CONVERGED_RESIDUAL, self.notes)

    def _raise(self, matrix: Tensor, floor: float) -> None:
        values = torch.linalg.eigvalsh(matrix)
        lowest, below = float(values[0]), int((values < -floor).sum())
        if lowest + self.shift > floor:
            return
        self.shift = max(self.shift, 2 * abs(lowest), 2 * floor)
        if self.shift == 0.0:
            raise ValueError(NOTHING_TO_INVERT)
        total = self.operator.total
        added = (
            f"the diagonal was raised from {self.operator.shift / total:.2g} to {self.shift / total:.2g} (mean loss)"
        )
        if below:
            self.notes = (f"{self.negative_curvature_note(str(below), lowest)} To invert it {added}.",)
        else:
            self.notes = (f"The curvature is singular to rounding: {added}.",)


def _by_roots(operator: Operator) -> Tensor | None:
    """The Gauss–Newton matrix by one pass over the data for each output, where that is fewer than the parameters."""
    if not isinstance(operator, GaussNewtonOperator) or operator.outputs_per_example >= operator.size:
        return None
    train = operator.summed.train
    if (
        len(train) * operator.outputs_per_example**2 > MAX_HESSIAN_NUMBERS
        or inspect(operator.network, "loss", train).fallback
    ):
        return None  # what hooks cannot see is pulled back example by example
    roots = Roots(operator, share=1.0)
    return roots.squared() if roots.convex else None


class ProductOperator(Protocol):
    """What is needed to assemble a matrix."""

    network: Network
    size: int

    def product(self, blocks: Blocks) -> dict[str, Tensor]:
        """A v."""


def assemble(operator: ProductOperator) -> Tensor:
    """A without the shift, (size, size) in float64, symmetric."""
    network, size = operator.network, operator.size
    matrix = torch.empty(size, size, dtype=torch.float64, device=network.device)
    width = max(1, MAX_UNIT_NUMBERS // size)
    for start in range(0, size, width):
        stop = min(start + width, size)
        units = torch.zeros(stop - start, size, dtype=network.precision, device=network.device)
        units[torch.arange(stop - start), torch.arange(start, stop)] = 1.0
        matrix[start:stop] = to_matrix(network, operator.product(to_blocks(network, units)))
    return matrix.add_(matrix.T.clone()).div_(2)


def _positive(matrix: Tensor, shift: float) -> bool:
    tried = matrix.clone()
    tried.diagonal().add_(shift)
    return int(torch.linalg.cholesky_ex(tried)[1]) == 0

"""What a solver is, and what it has to say about its answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from upweight.curvature.operators import Blocks, Operator
from upweight.curvature.solvers.algebra import inner_products, norms, take_columns

CONVERGED_RESIDUAL = 1e-2  # relative residual up to which a solver without a tolerance of its own counts as converged
PROBED_COLUMNS = 8  # columns whose residual is measured where all err alike


class Solution(NamedTuple):
    """x with (A + shift) x ≈ b.

    Attributes:
        blocks: x, name → (k, *shape).
        residual: largest ‖(A + shift) x − b‖ / ‖b‖ over the columns, measured by a product with the operator.
        steps: products that each column took, 0 for a factorisation.
        converged: whether the residual is what was asked for.
        notes: what a reader should know, as sentences.
    """

    blocks: dict[str, Tensor]
    residual: float
    steps: int
    converged: bool
    notes: tuple[str, ...] = ()


class PreparedSolver(ABC):
    """A solver that has done what needs the matrix alone, and takes right-hand sides.

    Attributes:
        operator: the matrix.
        name: the solver in words.
        shift: what is on the diagonal: the operator's shift, more where the matrix could not be inverted with that.
        notes: what was met in preparing.
    """

    def __init__(self, operator: Operator, name: str) -> None:
        self.operator, self.name, self.shift = operator, name, operator.shift
        self.notes: tuple[str, ...] = ()

    @abstractmethod
    def solve(self, blocks: Blocks) -> Solution:
        """(A + shift)⁻¹ applied to every column of blocks, name → (k, *shape)."""

    def residuals(self, x: Blocks, blocks: Blocks, probe: int | None = None) -> Tensor:
        """‖(A + shift) x − b‖ / ‖b‖ of the columns, (k,); of the first `probe` where that is given."""
        if probe is not None:
            x, blocks = take_columns(x, slice(0, probe)), take_columns(blocks, slice(0, probe))
        left = self.operator.product(x)
        for name, block in left.items():
            block.add_(x[name], alpha=self.shift).sub_(blocks[name])
        return relative_residual(inner_products(left, left).sqrt(), norms(blocks))

    def negative_curvature_note(self, count: str, lowest: float) -> str:
        """A sentence about negative curvature, on the scale of the mean loss."""
        return (
            f"Negative curvature: {count} of {self.operator.size} eigenvalues lie below zero, the lowest at "
            f"{lowest / self.operator.total:.2g} (mean loss): the parameters are no minimum of the training objective."
        )


def relative_residual(left: Tensor, size: Tensor) -> Tensor:
    """left / size, 0 for a right-hand side of zero that is met."""
    return left / size.where(size > 0, size.new_ones(()))

"""The interface of a solver, and its solution with a residual and notes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.operators import Blocks, Operator
from upweight.curvature.solvers.algebra import norms, take_columns

CONVERGED_RESIDUAL = 1e-2  # a solver without its own tolerance has converged at this relative residual or below
PROBED_COLUMNS = 8  # columns whose residual is measured if it is about the same for all


class Solution(NamedTuple):
    """x with (A + shift) x ≈ b.

    Attributes:
        blocks: x, name → (k, *shape).
        residual: largest ‖(A + shift) x − b‖ / ‖b‖ over the columns, measured by a product with the operator.
        steps: products that each column took, 0 for a factorisation.
        converged: whether the residual is within the tolerance.
        notes: sentences about problems that the solver met.
    """

    blocks: dict[str, Tensor]
    residual: float
    steps: int
    converged: bool
    notes: tuple[str, ...] = ()


class PreparedSolver(ABC):
    """A solver after the work that depends only on the matrix, ready for right-hand sides.

    Attributes:
        operator: the matrix.
        name: the name of the solver in diagnostics.
        shift: what is added to the diagonal: the operator's shift, or more if the matrix could not be inverted with it.
        notes: sentences about problems met in the preparation.
    """

    def __init__(self, operator: Operator, name: str) -> None:
        self.operator, self.name, self.shift = operator, name, operator.shift
        self.notes: tuple[str, ...] = ()

    @abstractmethod
    def solve(self, blocks: Blocks) -> Solution:
        """(A + shift)⁻¹ applied to every column of blocks, name → (k, *shape)."""

    def state(self) -> SavedState:
        """The state that took long to prepare; by default none, and the solver is prepared again."""
        return NOTHING_SAVED

    def residuals(self, x: Blocks, blocks: Blocks, probe: int | None = None) -> Tensor:
        """‖(A + shift) x − b‖ / ‖b‖ of all columns, or of the first `probe` columns: (k,)."""
        if probe is not None:
            x, blocks = take_columns(x, slice(0, probe)), take_columns(blocks, slice(0, probe))
        remainder = self.operator.product(x)
        for name, block in remainder.items():
            block.add_(x[name], alpha=self.shift).sub_(blocks[name])
        return relative_residual(norms(remainder), norms(blocks))

    def negative_curvature_note(self, count: str, lowest: float) -> str:
        """A sentence about negative curvature, on the scale of the mean loss."""
        return (
            f"Negative curvature: {count} of {self.operator.size} eigenvalues lie below zero, the lowest at "
            f"{lowest / self.operator.total:.2g} (mean loss): the parameters are not at a minimum of the objective."
        )


def relative_residual(remainder: Tensor, size: Tensor) -> Tensor:
    """remainder / size; for a right-hand side of zero, the remainder itself."""
    return remainder / size.where(size > 0, size.new_ones(()))

"""Inverse: a prepared solver that takes rows and remembers what it had to say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.curvature import Solved
from upweight.core.rows import Rows
from upweight.curvature.operators import Blocks
from upweight.curvature.solvers.algebra import column_count, stack_columns, take_columns, to_matrix
from upweight.curvature.solvers.solution import PreparedSolver, Solution
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.network import Network
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]
MAX_RIGHT_SIDE_NUMBERS = 1 << 26  # solved at a time: 256 MB in float32, solvers hold a few times that


@final
class Inverse:
    """(A + shift)⁻¹ on rows, some at a time.

    Attributes:
        warnings: what a reader should know of the solves so far.
    """

    def __init__(self, solver: PreparedSolver) -> None:
        self.solver, self.network = solver, solver.operator.network
        self._notes: dict[str, None] = dict.fromkeys(solver.notes)
        self._worst: Solution | None = None

    @property
    def name(self) -> str:
        """The solver in words."""
        return self.solver.name

    @property
    def shift(self) -> float:
        """What is on the diagonal."""
        return self.solver.shift

    @property
    def warnings(self) -> list[str]:
        """Negative curvature, restarts, and a residual above what was asked for."""
        said = list(self._notes)
        if self._worst is not None and not self._worst.converged:
            steps = f" after {self._worst.steps:,} steps" if self._worst.steps else ""
            said.append(
                f"The solver ({self.name}) left a relative residual of {self._worst.residual:.2g}{steps}: the scores "
                "are those of an approximate inverse."
            )
        return said

    def matvec(self, vectors: Array) -> Array:
        """(A + shift) v, with what the solver had to add to the shift."""
        product = self.solver.operator.product(self.network.split(vectors))
        return self.network.join(product) + self.shift * np.asarray(vectors, dtype=np.float64)

    def solve(self, rows: Rows) -> Solved:
        """(A + shift)⁻¹ rows as tensors; residual and steps are those of the worst row."""
        found = [self.solver.solve(part) for part in materialise_columns(self.network, rows)]
        worst = max(found, key=lambda part: (not part.converged, part.residual))
        steps = max(part.steps for part in found)
        self._notes |= dict.fromkeys(note for part in found for note in part.notes)
        if self._worst is None or (not worst.converged, worst.residual) > (
            not self._worst.converged,
            self._worst.residual,
        ):
            self._worst = Solution({}, *worst[1:])
        solved = TensorRows(self.network, stack_columns(part.blocks for part in found))
        return Solved(solved, max(part.residual for part in found), steps, all(part.converged for part in found))

    def pairwise_inner_products(self, rows: Sequence[CapturedBatch]) -> Tensor:
        """⟨xᵢ, (A + shift)⁻¹ yᵢ⟩ of every two of k sets of rows of the same examples, (examples, k, k)."""
        right = [{name: batch.materialise(name) for name in self.network.names} for batch in rows]
        left = [to_matrix(self.network, self.solver.solve(blocks).blocks).double() for blocks in right]
        wide = [to_matrix(self.network, blocks).double() for blocks in right]
        return torch.einsum("cbp,dbp->bcd", torch.stack(left), torch.stack(wide))


def materialise_columns(network: Network, rows: Rows) -> Iterator[Blocks]:
    """Rows as blocks of a bounded number of columns; captured ones never all at once."""
    width = max(1, MAX_RIGHT_SIDE_NUMBERS // network.size)
    if not isinstance(rows, CapturedRows):
        blocks = TensorRows.of(network, rows).blocks
        for start in range(0, column_count(blocks), width):
            yield take_columns(blocks, slice(start, start + width))
        return
    for start in range(0, len(rows), width):
        part = rows.take(np.arange(start, min(start + width, len(rows))))
        yield stack_columns(tensors.blocks for _, tensors in part.tensors())

"""A prepared solver applied to rows, with the notes of all its solves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.blocks import blocks as slices
from upweight.core.curvature import Solved
from upweight.core.rows import Rows
from upweight.core.saved_state import SavedState
from upweight.curvature.operators import Blocks
from upweight.curvature.solvers.algebra import column_count, stack_columns, take_columns, to_matrix
from upweight.curvature.solvers.solution import PreparedSolver, Solution
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.network import Network
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]
MAX_RIGHT_SIDE_NUMBERS = 1 << 26  # of the columns solved at a time: 256 MB in float32; solvers hold a few times that


@final
class Inverse:
    """(A + shift)⁻¹ applied to rows, some at a time.

    Attributes:
        max_numbers: numbers of the right-hand sides that are solved at a time.
    """

    def __init__(self, solver: PreparedSolver) -> None:
        self.solver, self.network = solver, solver.operator.network
        self._notes: dict[str, None] = dict.fromkeys(solver.notes)
        self._worst: Solution | None = None
        self.max_numbers = MAX_RIGHT_SIDE_NUMBERS

    @property
    def name(self) -> str:
        """The name of the solver in diagnostics."""
        return self.solver.name

    @property
    def shift(self) -> float:
        """The number that is added to the diagonal."""
        return self.solver.shift

    def state(self) -> SavedState:
        """The state of the solver."""
        return self.solver.state()

    @property
    def warnings(self) -> list[str]:
        """Sentences about negative curvature, restarts, and a residual above the tolerance, in all solves so far."""
        warnings = list(self._notes)
        if self._worst is not None and not self._worst.converged:
            steps = f" after {self._worst.steps:,} steps" if self._worst.steps else ""
            warnings.append(
                f"The solver ({self.name}) left a relative residual of {self._worst.residual:.2g}{steps}: the scores "
                "are those of an approximate inverse."
            )
        return warnings

    def matvec(self, vectors: Array) -> Array:
        """(A + shift) v; the shift includes what the solver added."""
        product = self.solver.operator.product(self.network.split(vectors))
        return self.network.join(product) + self.shift * np.asarray(vectors, dtype=np.float64)

    def solve(self, rows: Rows) -> Solved:
        """(A + shift)⁻¹ rows as tensors; residual and steps are those of the worst row."""
        solutions = [
            self.solver.solve(columns) for columns in materialise_columns(self.network, rows, self.max_numbers)
        ]
        worst = max(solutions, key=lambda solution: (not solution.converged, solution.residual))
        steps = max(solution.steps for solution in solutions)
        self._notes |= dict.fromkeys(note for solution in solutions for note in solution.notes)
        if self._worst is None or (not worst.converged, worst.residual) > (
            not self._worst.converged,
            self._worst.residual,
        ):
            self._worst = Solution({}, *worst[1:])
        solved = TensorRows(self.network, stack_columns(solution.blocks for solution in solutions))
        residual, converged = max(s.residual for s in solutions), all(s.converged for s in solutions)
        return Solved(solved, residual, steps, converged)

    def pairwise_inner_products(self, rows: Sequence[CapturedBatch]) -> Tensor:
        """⟨xᵢ, (A + shift)⁻¹ yᵢ⟩ for each pair of k sets of rows of the same examples, (examples, k, k)."""
        right = [{name: batch.materialise(name) for name in self.network.names} for batch in rows]
        left = [to_matrix(self.network, self.solver.solve(blocks).blocks).double() for blocks in right]
        wide = [to_matrix(self.network, blocks).double() for blocks in right]
        return torch.einsum("cbp,dbp->bcd", torch.stack(left), torch.stack(wide))


def materialise_columns(network: Network, rows: Rows, max_numbers: int) -> Iterator[Blocks]:
    """Rows as blocks of at most `max_numbers` numbers; captured rows are never materialised all at once."""
    width = max(1, max_numbers // network.size)
    if not isinstance(rows, CapturedRows):
        blocks = TensorRows.of(network, rows).blocks
        for where in slices(column_count(blocks), width):
            yield take_columns(blocks, where)
        return
    for where in slices(len(rows), width):
        part = rows.take(np.arange(where.start, where.stop))
        yield stack_columns(tensors.blocks for _, tensors in part.tensors())

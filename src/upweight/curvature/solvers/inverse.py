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
from upweight.curvature.solvers.algebra import count, flat, stacked, taken
from upweight.curvature.solvers.solution import Prepared, Solution
from upweight.gradients.captured import Captured
from upweight.gradients.network import Network
from upweight.gradients.rows import CapturedRows, TensorRows

Array = NDArray[np.float64]
WIDE = 1 << 26  # numbers of the right-hand sides solved at a time: 256 MB in float32, solvers hold a few times that


@final
class Inverse:
    """(A + shift)⁻¹ on rows, some at a time.

    Attributes:
        warnings: what a reader should know of the solves so far.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared, self.network = prepared, prepared.operator.network
        self._notes: dict[str, None] = dict.fromkeys(prepared.notes)
        self._worst: Solution | None = None

    @property
    def name(self) -> str:
        """The solver in words."""
        return self.prepared.name

    @property
    def shift(self) -> float:
        """What is on the diagonal."""
        return self.prepared.shift

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
        product = self.prepared.operator.product(self.network.split(vectors))
        return self.network.join(product) + self.shift * np.asarray(vectors, dtype=np.float64)

    def solve(self, rows: Rows) -> Solved:
        """(A + shift)⁻¹ rows as tensors; residual and steps are those of the worst row."""
        found = [self.prepared.solve(part) for part in materialised(self.network, rows)]
        worst = max(found, key=lambda part: (not part.converged, part.residual))
        steps = max(part.steps for part in found)
        self._notes |= dict.fromkeys(note for part in found for note in part.notes)
        if self._worst is None or (not worst.converged, worst.residual) > (
            not self._worst.converged,
            self._worst.residual,
        ):
            self._worst = Solution({}, *worst[1:])
        solved = TensorRows(self.network, stacked(part.blocks for part in found))
        return Solved(solved, max(part.residual for part in found), steps, all(part.converged for part in found))

    def meetings(self, rows: Sequence[Captured]) -> Tensor:
        """⟨xᵢ, (A + shift)⁻¹ yᵢ⟩ of every two of k sets of rows of the same examples, (examples, k, k)."""
        right = [{name: batch.materialise(name) for name in self.network.names} for batch in rows]
        left = [flat(self.network, self.prepared.solve(blocks).blocks).double() for blocks in right]
        wide = [flat(self.network, blocks).double() for blocks in right]
        return torch.einsum("cbp,dbp->bcd", torch.stack(left), torch.stack(wide))


def materialised(network: Network, rows: Rows) -> Iterator[Blocks]:
    """Rows as blocks of a bounded number of columns; captured ones never all at once."""
    width = max(1, WIDE // network.size)
    if not isinstance(rows, CapturedRows):
        blocks = TensorRows.of(network, rows).blocks
        for start in range(0, count(blocks), width):
            yield taken(blocks, slice(start, start + width))
        return
    for start in range(0, len(rows), width):
        part = rows.take(np.arange(start, min(start + width, len(rows))))
        yield stacked(tensors.blocks for _, tensors in part.tensors())

"""Random projections of per-example gradients, computed from the factors of each layer, not from the full gradient.

A layer's gradient Σ_t s_t a_tᵀ becomes Σ_t (P s_t)(R a_t)ᵀ with two small Gaussian matrices (LoGra, Choe et al. 2024):
inner products of projected gradients equal those of the gradients in expectation. Gradients that are not outer products
are projected with one matrix.
"""

from __future__ import annotations

from math import isqrt, prod, sqrt
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.gradient_terms import DenseTerm, GradientTerm, LookupTerm, OuterTerm
from upweight.gradients.network import Network

Array = NDArray[np.float64]


@final
class Projection:
    """A random projection of gradients to at most k numbers per parameter tensor.

    The gradient G of a matrix becomes P G Rᵀ, of about √k × √k numbers; a vector is multiplied by one matrix.
    Parameters with at most k numbers are not projected.

    Args:
        network: the network whose parameters are projected.
        numbers: k, an upper limit; all k are used if k is a square number and both sides of the matrix are at least √k.
        seed: of the Gaussian matrices, which are drawn on the CPU.

    Attributes:
        width: numbers per projected row.
    """

    def __init__(self, network: Network, numbers: int = 256, seed: int = 0) -> None:
        if numbers < 1:
            raise ValueError(f"expected at least one number per parameter tensor, got {numbers}")
        self.network, generator = network, torch.Generator().manual_seed(seed)
        self.matrices: dict[str, tuple[Tensor | None, Tensor | None]] = {}
        self.width = 0
        for name, shape in network.shapes.items():
            rows = shape[0] if len(shape) > 1 else 1
            columns = prod(shape) // rows
            left, right = _sizes(rows, columns, numbers)
            pair = tuple(
                None if width == size else self._draw(width, size, generator)
                for width, size in ((left, rows), (right, columns))
            )
            self.matrices[name] = (pair[0], pair[1])
            self.width += left * right

    def rows(self, rows: CapturedRows) -> Array:
        """Projected rows, (n, width), with their weights and their shares of the regulariser; costs one pass."""
        out = np.empty((len(rows), self.width))
        for block, batch in rows.passes():
            out[block] = self._project(batch).cpu().double().numpy()
        if rows.share is not None:
            blocks = [self._dense(name, rows.share[name][None]) for name in self.network.names]
            out += rows.weights[:, None] * torch.cat(blocks, dim=1).cpu().double().numpy()
        return out

    def matrix(self) -> Array:
        """The projection as a matrix (parameters, width), for tests: `rows(r) == r.project(matrix())`."""
        out = np.zeros((self.network.size, self.width))
        row = column = 0
        for name, shape in self.network.shapes.items():
            size = prod(shape)
            block = self._dense(name, torch.eye(size, dtype=self.network.precision).reshape(size, *shape))
            out[row : row + size, column : column + block.shape[1]] = block.cpu().double().numpy()
            row, column = row + size, column + block.shape[1]
        return out

    def _project(self, batch: CapturedBatch) -> Tensor:
        pieces = []
        for name in self.network.names:
            projected = [self._term(name, term) for term in batch.terms[name]]
            zeros = self._dense(name, batch.like.new_zeros(1, *self.network.shapes[name])).expand(batch.count, -1)
            pieces.append(sum(projected[1:], projected[0]) if projected else zeros)
        return torch.cat(pieces, dim=1)

    def _term(self, name: str, term: GradientTerm) -> Tensor:
        left, right = self.matrices[name]
        if isinstance(term, DenseTerm):
            return self._dense(name, term.values)
        assert isinstance(term, OuterTerm | LookupTerm)
        b = term.right if right is None else term.right @ right.T
        if isinstance(term, OuterTerm):
            a = term.left if left is None else term.left @ left.T
        elif left is None:
            return LookupTerm(term.ids, b, (term.shape[0], b.shape[-1])).materialise().flatten(1)
        else:
            a = left.T[term.ids]
        return (a.transpose(1, 2) @ b).flatten(1)

    def _dense(self, name: str, values: Tensor) -> Tensor:
        left, right = self.matrices[name]
        rows = values.shape[1] if values.ndim > 2 else 1
        values = values.reshape(len(values), rows, -1)
        if right is not None:
            values = values @ right.T
        if left is not None:
            values = left @ values
        return values.flatten(1)

    def _draw(self, width: int, size: int, generator: torch.Generator) -> Tensor:
        matrix = torch.randn(width, size, generator=generator, dtype=self.network.precision) / sqrt(width)
        return matrix.to(self.network.device)


def _sizes(rows: int, columns: int, numbers: int) -> tuple[int, int]:
    """Numbers of rows and columns after projection, as close to a square as the sides allow."""
    if rows * columns <= numbers:
        return rows, columns
    left = min(rows, isqrt(numbers))
    right = min(columns, numbers // left)
    return min(rows, numbers // right), right

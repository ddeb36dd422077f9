"""Rows: per-example gradients as a matrix (n, parameters) that need not be in memory as a matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks
from upweight.core.forecast import counted

DENSE_NUMBERS = 1 << 24  # numbers of the rows that are materialised at a time

DensePart = tuple[slice, slice, NDArray[np.float64]]  # which rows, which columns, that part of the matrix


class Rows(ABC):
    """Per-example gradients, one row each; the parameters are ordered as in `dense()`."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def dot(self, other: Rows) -> NDArray[np.float64]:
        """Inner products of all pairs, shape (len(self), len(other)): `dense() @ other.dense().T`."""

    @abstractmethod
    def project(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """`dense() @ matrix`, shape (len(self), k), for a matrix of shape (parameters, k)."""

    def dense_parts(self, columns: Sequence[slice]) -> Iterator[DensePart]:
        """`dense()` without room in memory: (which rows, which of these columns, that part of it).

        All columns of some rows follow each other, so that what is made for columns is made a few times only.
        """
        parameters = self.take(np.arange(min(1, len(self)))).dense().shape[1]
        for part in blocks(len(self), max(1, DENSE_NUMBERS // max(1, parameters))):
            dense = self.take(np.arange(part.start, part.stop)).dense()
            for some in counted(columns, len(columns)):
                yield part, some, dense[:, some]

    @abstractmethod
    def dense(self) -> NDArray[np.float64]:
        """The matrix itself, shape (len(self), parameters): for small problems and tests."""

    @abstractmethod
    def take(self, positions: NDArray[np.intp]) -> Rows:
        """The rows at these positions."""

    @abstractmethod
    def sums(self, membership: NDArray[np.float64]) -> DenseRows:
        """`membership @ dense()`: weighted sums of rows, one for each row of membership (groups, len(self))."""

    def squares(self) -> NDArray[np.float64]:
        """Squared norms, (len(self),)."""
        dense = self.dense()
        return np.asarray(np.einsum("ij,ij->i", dense, dense))

    def normalised(self, by_layer: bool = False) -> Rows:
        """Every row divided by its norm; a row of zeros stays zero.

        `by_layer` divides the part of each layer by the norm of that part. Raises ValueError if rows have no layers.
        """
        if by_layer:
            raise ValueError(f"{type(self).__name__} have no layers: only gradients of networks do")
        return DenseRows(self.dense() * reciprocal_roots(self.squares())[:, None])


class DenseRows(Rows):
    """Rows in memory as a matrix (k, parameters)."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def dot(self, other: Rows) -> NDArray[np.float64]:
        """Inner products; if the other rows are not dense, computed by them."""
        if isinstance(other, DenseRows):
            return np.asarray(self.values @ other.values.T)
        return other.dot(self).T

    def project(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """`dense() @ matrix`."""
        return np.asarray(self.values @ matrix)

    def dense(self) -> NDArray[np.float64]:
        """The matrix."""
        return self.values

    def take(self, positions: NDArray[np.intp]) -> DenseRows:
        """The rows at these positions."""
        return DenseRows(self.values[positions])

    def sums(self, membership: NDArray[np.float64]) -> DenseRows:
        """`membership @ dense()`."""
        return DenseRows(membership @ self.values)


def reciprocal_roots(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """1/√s, and 0 for s = 0."""
    return np.where(squares > 0, 1.0 / np.sqrt(np.where(squares > 0, squares, 1.0)), 0.0)

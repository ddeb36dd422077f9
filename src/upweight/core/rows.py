"""Rows: a tall matrix of per-example gradients that need not exist as a matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray


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

    @abstractmethod
    def dense(self) -> NDArray[np.float64]:
        """The matrix itself, shape (len(self), parameters): for small problems and tests."""

    @abstractmethod
    def take(self, positions: NDArray[np.intp]) -> Rows:
        """The rows at these positions."""

    @abstractmethod
    def sums(self, member: NDArray[np.float64]) -> DenseRows:
        """`member @ dense()`: weighted sums of rows, one for each row of member (groups, len(self))."""


class DenseRows(Rows):
    """Rows that exist as a matrix (k, parameters)."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def dot(self, other: Rows) -> NDArray[np.float64]:
        """Inner products; the other side decides how, where it is no matrix."""
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

    def sums(self, member: NDArray[np.float64]) -> DenseRows:
        """`member @ dense()`."""
        return DenseRows(member @ self.values)

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

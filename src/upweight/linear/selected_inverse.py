"""Entries of the inverse of a sparse matrix, at the pairs of columns that its elimination has touched.

Source: Takahashi, Fagan & Chin (1973), Formation of a sparse bus impedance matrix and its application to short circuit
study: with A = LDLᵀ, the inverse Z has Z = D⁻¹L⁻¹ + (I − Lᵀ)Z, whose rows follow from the last to the first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from upweight.linear.column_elimination import EliminatedMatrix, Level
from upweight.linear.row_pairs import row_pairs

Array = NDArray[np.float64]
Positions = NDArray[np.intp]


class SelectedInverse:
    """The inverse of an eliminated matrix, at every pair of columns of its pattern.

    Args:
        matrix: the factorisation.
        core: the inverse of the dense rest, of which the upper triangle is read.
    """

    def __init__(self, matrix: EliminatedMatrix, core: Array) -> None:
        self._place, self._core, self._first = matrix.place, core, len(matrix.pivots)
        self._diagonal = 1.0 / matrix.pivots
        rows = [level.rows for level in matrix.levels]
        counts = np.concatenate([np.diff(part.indptr) for part in rows]) if rows else np.empty(0, dtype=np.intp)
        self._pointers = np.concatenate([[0], np.cumsum(counts)])
        self._values = np.zeros(self._pointers[-1])
        columns = np.concatenate([part.indices for part in rows]) if rows else np.empty(0, dtype=np.intp)
        # The number of each entry, from 1, so that a pair which is not an entry is seen: it is 0 there.
        numbers = np.arange(1, len(columns) + 1)
        self._numbers = sparse.csr_matrix((numbers, columns, self._pointers), (self._first, matrix.size))
        for level in reversed(matrix.levels):
            self._fill(level)

    def at(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> Array:
        """The entries at these pairs of columns, (pairs,). Raises KeyError for a pair that is not in the pattern."""
        return self._at_places(self._place[rows], self._place[columns])

    def _fill(self, level: Level) -> None:
        """The entries of one level, from those of the later ones."""
        rows, offset = level.rows, self._pointers[level.start]
        sums = np.zeros(rows.nnz)
        for pairs in row_pairs(rows.indptr):
            between = self._at_places(rows.indices[pairs.left], rows.indices[pairs.right])
            sums += np.bincount(pairs.left, rows.data[pairs.right] * between, minlength=rows.nnz)
            is_twice = pairs.left != pairs.right
            left, right = pairs.left[is_twice], pairs.right[is_twice]
            sums += np.bincount(right, rows.data[left] * between[is_twice], minlength=rows.nnz)
        self._values[offset : offset + rows.nnz] = -sums
        row = np.repeat(np.arange(level.stop - level.start), np.diff(rows.indptr))
        added = np.bincount(row, rows.data * sums, minlength=level.stop - level.start)
        self._diagonal[level.start : level.stop] += added

    def _at_places(self, a: Positions, b: Positions) -> Array:
        low, high, first = np.minimum(a, b), np.maximum(a, b), self._first
        out, in_core = np.empty(len(low)), low >= first
        out[in_core] = self._core[low[in_core] - first, high[in_core] - first]
        on_diagonal = ~in_core & (low == high)
        out[on_diagonal] = self._diagonal[low[on_diagonal]]
        others = ~in_core & (low != high)
        if others.any():
            numbers = np.asarray(self._numbers[low[others], high[others]]).ravel()
            if not numbers.all():
                raise KeyError("expected pairs of columns of the pattern, got one whose inverse is not known")
            out[others] = self._values[numbers - 1]
        return out

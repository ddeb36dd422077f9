"""The factorisation of a sparse symmetric matrix: rare columns are eliminated one by one, the rest is dense.

A word that few texts use meets few other words. Eliminating it changes the entries between these alone, so thousands of
words go for less than a dense factorisation takes for one. What is left, the columns that meet most others, is factored
as a dense matrix. This is Gaussian elimination in another order: exact, and stable for positive definite matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from upweight.core.matrix_products import expect_products
from upweight.linear.cholesky import inverse_above
from upweight.linear.row_pairs import row_pairs

Array = NDArray[np.float64]
Positions = NDArray[np.intp]
NUMBER_COST = 3000.0  # an operation on a single number of a sparse matrix, in operations of a dense product


class Level(NamedTuple):
    """Columns no two of which meet, eliminated together: places `start` to `stop` in the order of elimination.

    Attributes:
        start, stop: their places.
        rows: their rows of the matrix then, divided by their pivots, without the diagonal: CSR (stop − start, p).
    """

    start: int
    stop: int
    rows: Any


class EliminatedMatrix:
    """A factorisation of a positive definite matrix (p, p) with the rare columns eliminated first.

    Args:
        matrix: CSR, with both triangles and sorted columns. Entries that are stored may be 0: they belong to the
            pattern at which `SelectedInverse` knows the inverse.

    Attributes:
        order: the column at each place in the order of elimination, (p,); those of the core last.
        place: the place of each column, (p,).
        levels: what was eliminated.
        pivots: of the eliminated columns, by place.
        core: lower Cholesky factor of the dense rest, in Fortran order.

    Raises:
        LinAlgError: the matrix is not positive definite.
    """

    def __init__(self, matrix: Any) -> None:
        self.size = int(matrix.shape[0])
        columns, eliminated, pieces, pivots = np.arange(self.size), [], [], [np.empty(0)]
        while len(chosen := independent_columns(matrix)):
            pivot = matrix.diagonal()[chosen]
            if not (pivot > 0).all():
                raise np.linalg.LinAlgError("a pivot is not positive")
            rest = np.delete(np.arange(len(columns)), chosen)
            rows = matrix[chosen][:, rest]
            eliminated.append(columns[chosen])
            columns = columns[rest]
            scaled = rows.data / np.repeat(pivot, np.diff(rows.indptr))
            pieces.append((scaled, columns[rows.indices], rows.indptr))
            pivots.append(pivot)
            matrix = _schur_complement(matrix[rest][:, rest], rows, scaled)
        self.order: Positions = np.concatenate([*eliminated, columns])
        self.place: Positions = np.empty(self.size, dtype=np.intp)
        self.place[self.order] = np.arange(self.size)
        self.pivots: Array = np.concatenate(pivots)
        self.levels, start = list[Level](), 0
        for data, indices, pointers in pieces:
            stop = start + len(pointers) - 1
            rows = sparse.csr_matrix((data, self.place[indices], pointers), (stop - start, self.size))
            rows.sort_indices()
            self.levels.append(Level(start, stop, rows))
            start = stop
        expect_products(len(columns) ** 3 / 3, 8.0 * len(columns) ** 2)
        dense = np.asfortranarray(matrix.toarray())
        self.core: Array = dense
        if len(dense):
            self.core = cho_factor(dense, lower=True, overwrite_a=True, check_finite=False)[0]

    @property
    def entries(self) -> int:
        """Numbers that one triangular solve reads."""
        return sum(len(level.rows.data) for level in self.levels) + self.size + len(self.core) ** 2 // 2

    def smallest_pivot(self, diagonal: Array) -> float:
        """The smallest pivot beside its entry of this diagonal of the matrix (p,): rounding if it is singular."""
        pivots = np.concatenate([self.pivots, np.diagonal(self.core) ** 2])
        original = diagonal[self.order]
        return float((pivots / np.where(original > 0, original, 1.0)).min(initial=np.inf))

    def solve(self, vectors: Array) -> Array:
        """The inverse times vectors (k, p); the result is in Fortran order, as products with sparse rows need it."""
        y, first = np.ascontiguousarray(vectors[:, self.order].T), len(self.pivots)
        for level in self.levels:
            y -= level.rows.T @ y[level.start : level.stop]
        y[:first] /= self.pivots[:, None]
        if len(self.core):
            y[first:] = cho_solve((self.core, True), y[first:], check_finite=False)
        for level in reversed(self.levels):
            y[level.start : level.stop] -= level.rows @ y
        out = np.empty_like(y)
        out[self.order] = y
        return np.asarray(out.T)

    @contextmanager
    def core_inverse(self) -> Iterator[Array]:
        """The inverse of the dense rest, above the diagonal of the array of its factor, which must not be used then."""
        if not len(self.core):
            yield self.core
            return
        with inverse_above(self.core) as inverse:
            yield inverse


def independent_columns(matrix: Any) -> Positions:
    """Columns no two of which meet, and for which eliminating costs less than keeping them in a dense factor.

    Those that meet fewest others are chosen first. None, if rebuilding the matrix costs more than they gain: a column
    of a dense matrix of m costs 3m² operations for its factor and inverse.
    """
    size, pointers, indices = matrix.shape[0], matrix.indptr, matrix.indices
    degrees, gain = np.diff(pointers) - 1, 3.0 * size**2
    order = np.argsort(degrees, kind="stable")
    candidates = order[NUMBER_COST * (degrees[order] + 1.0) ** 2 <= gain]
    is_blocked, chosen = np.zeros(size, dtype=bool), []
    for column in candidates.tolist():
        if not is_blocked[column]:
            chosen.append(column)
            is_blocked[indices[pointers[column] : pointers[column + 1]]] = True
    if len(chosen) * gain <= NUMBER_COST * matrix.nnz:
        return np.empty(0, dtype=np.intp)
    return np.sort(np.array(chosen, dtype=np.intp))


def _schur_complement(rest: Any, rows: Any, scaled: Array) -> Any:
    """rest − rowsᵀ scaled, with every entry that is touched stored, also if it is 0."""
    parts = [sparse.csr_matrix(rest)]
    for pairs in row_pairs(rows.indptr):
        values = -scaled[pairs.left] * rows.data[pairs.right]
        a, b, is_twice = rows.indices[pairs.left], rows.indices[pairs.right], pairs.left != pairs.right
        update = sparse.coo_matrix(
            (
                np.concatenate([values, values[is_twice]]),
                (np.concatenate([a, b[is_twice]]), np.concatenate([b, a[is_twice]])),
            ),
            rest.shape,
        )
        parts.append(update.tocsr())
    return _sum(parts)


def _sum(parts: list[Any]) -> Any:
    """The sum of sparse matrices, with the entries of all, also where they cancel."""
    if len(parts) == 1:
        return parts[0]
    coordinates = [part.tocoo() for part in parts]
    data, row, column = (
        np.concatenate([getattr(part, name) for part in coordinates]) for name in ("data", "row", "col")
    )
    total = sparse.coo_matrix((data, (row, column)), parts[0].shape).tocsr()
    total.sort_indices()
    return total

"""The n × d feature matrix of a linear model, dense or sparse, with an intercept column that is never stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import blas

from upweight.core.blocks import blocks
from upweight.linear.row_pairs import MAX_PAIRS, row_pairs

Array = NDArray[np.float64]
Entries = Callable[[NDArray[np.integer], NDArray[np.integer]], Array]  # of a matrix, at pairs of columns
ROW_CHUNK = 1024  # rows (or columns) of a dense scratch block: large enough for the BLAS, small beside the features
FINITE_CHECK_CHUNK = 65_536  # values checked for NaN at a time


class Features:
    """A matrix X with an implied last column that holds `intercept` (no such column if it is 0).

    Args:
        x: float array (n, columns) of any precision, or a sparse matrix.
        intercept: the value of the extra column; scikit-learn's is 1, liblinear's `intercept_scaling`.
        penalised_intercept: whether the regulariser includes that column (liblinear's does).
        row_chunk: rows (or columns) of a dense scratch block.
        max_pairs: products of two nonzeros of one row in memory at a time.
    """

    def __init__(
        self,
        x: Any,
        intercept: float,
        penalised_intercept: bool = False,
        *,
        row_chunk: int = ROW_CHUNK,
        max_pairs: int = MAX_PAIRS,
    ) -> None:
        self.sparse = bool(sparse.issparse(x))
        self.x: Any = _canonical(x) if self.sparse else np.asarray(x)
        if self.x.ndim != 2:
            raise ValueError(
                f"expected features of shape (n, columns), got {self.x.shape}; reshape or add a pipeline step"
            )
        if self.x.dtype.kind not in "fiub":
            raise ValueError(f"expected numeric features, got {self.x.dtype}; encode them in the pipeline")
        values: Any = self.x.data if self.sparse else self.x
        if values.dtype.kind == "f" and not _all_finite(values):
            raise ValueError("the features have NaN or infinite values; impute or drop them in the pipeline")
        self.intercept = float(intercept)
        self.penalised_intercept = penalised_intercept
        self._row_chunk = row_chunk
        self._max_pairs = max_pairs
        self.columns = int(self.x.shape[1])
        self.width = self.columns + int(self.intercept != 0)

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def entries(self) -> int:
        """Stored numbers: n·d, or the nonzeros."""
        return int(self.x.nnz) if self.sparse else len(self) * self.width

    def squares(self) -> Array:
        """‖xᵢ‖² of every row, (n,)."""
        if self.sparse:
            body = np.asarray(self.x.multiply(self.x).sum(axis=1), dtype=np.float64).ravel()
        else:
            body = np.concatenate([(rows.astype(np.float64) ** 2).sum(axis=1) for _, rows in self._chunks()])
        return np.asarray(body + self.intercept**2)

    @property
    def penalised(self) -> Array:
        """1.0 for columns that the regulariser includes, else 0.0, shape (d,)."""
        mask = np.ones(self.width)
        if self.intercept and not self.penalised_intercept:
            mask[-1] = 0.0
        return mask

    def take(self, where: Any) -> Features:
        """The features of these rows."""
        part = copy(self)
        part.x = self.x[where]
        return part

    def select(self, columns: NDArray[np.intp]) -> Features:
        """The features with these columns alone, and the intercept."""
        part = copy(self)
        part.x = self.x.tocsc()[:, columns].tocsr() if self.sparse else self.x[:, columns]
        part.columns = len(columns)
        part.width = part.columns + int(self.intercept != 0)
        return part

    def dense(self) -> Array:
        """The matrix with its last column, shape (n, d)."""
        body = self.x.toarray() if self.sparse else self.x
        return self._with_intercept(np.asarray(body, dtype=np.float64))

    def times(self, v: Array) -> Array:
        """X v for v of shape (d, r): (n, r)."""
        body = v[: self.columns]
        if self.sparse:
            out = np.asarray(self.x @ body)
        elif self.x.dtype == np.float64:
            out = self.x @ body
        else:
            out = np.vstack([rows.astype(np.float64) @ body for _, rows in self._chunks()])
        if self.intercept:
            out += self.intercept * v[-1]
        return out

    def transposed_times(self, r: Array) -> Array:
        """Xᵀ r for r of shape (n, k): (d, k)."""
        if self.sparse or self.x.dtype == np.float64:
            body = np.asarray(self.x.T @ r)
        else:
            body = np.zeros((self.columns, r.shape[1]))
            for where, rows in self._chunks():
                body += rows.T.astype(np.float64) @ r[where]
        return np.vstack([body, self.intercept * r.sum(axis=0)]) if self.intercept else body

    def weighted_gram(self, weights: Array) -> Array:
        """Xᵀ diag(weights) X, lower triangle, (d, d), Fortran order: a symmetric rank-k update, no copy of X."""
        if self.sparse:
            return self._sparse_gram(weights)
        negative = weights < 0
        if negative.any() and (weights > 0).any():
            return self.weighted_gram(np.maximum(weights, 0.0)) + self.weighted_gram(np.minimum(weights, 0.0))
        alpha, scale = (-1.0 if negative.any() else 1.0), np.sqrt(np.abs(weights))
        gram = np.zeros((self.width, self.width), order="F")
        scratch = np.empty((min(self._row_chunk, len(self)), self.width))
        for where, rows in self._chunks():
            block = scratch[: len(rows)]
            np.multiply(rows, scale[where, None], out=block[:, : self.columns])
            if self.intercept:
                block[:, -1] = self.intercept * scale[where]
            gram = blas.dsyrk(alpha, block.T, beta=1.0, c=gram, lower=1, overwrite_c=1)
        return gram

    def quadratic(self, upper: Array) -> Array:
        """xᵢᵀ M xᵢ for every row and a symmetric M (d, d). Reads the upper triangle only: half the work of X M."""
        if self.sparse:
            return self.quadratic_of(lambda i, j: upper[i, j])
        upper, diagonal = np.asfortranarray(upper), np.diagonal(upper)
        out = np.empty(len(self))
        for where, rows in self._chunks():
            block = self._with_intercept(rows.astype(np.float64))
            product = blas.dtrmm(1.0, upper, block.T, trans_a=1)
            out[where] = 2.0 * np.einsum("ij,ji->i", block, product) - block**2 @ diagonal
        return out

    def _chunks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        for where in blocks(len(self), self._row_chunk):
            yield where, self.x[where]

    def _with_intercept(self, body: Array) -> Array:
        if not self.intercept:
            return body
        return np.hstack([body, np.full((len(body), 1), self.intercept)])

    def _sparse_gram(self, weights: Array) -> Array:
        gram = np.empty((self.width, self.width), order="F")
        scaled = sparse.csr_array(self.x.multiply(weights[:, None])).T.tocsr()
        by_column = self.x.tocsc()
        for where in blocks(self.columns, self._row_chunk):
            gram[: self.columns, where] = (scaled @ by_column[:, where]).toarray()
        if self.intercept:
            last = self.intercept * np.asarray(self.x.T @ weights)
            gram[-1, :-1] = gram[:-1, -1] = last
            gram[-1, -1] = self.intercept**2 * weights.sum()
        return gram

    def quadratic_of(self, entries: Entries) -> Array:
        """xᵢᵀ M xᵢ for every row of sparse features and a symmetric M, whose entries at pairs of columns are given.

        Only pairs of nonzeros of a row are asked for: Σ nnz²/2 work instead of n·nnz·d.
        """
        columns, data = self.x.indices, self.x.data.astype(np.float64)
        out = np.zeros(len(self))
        for pairs in row_pairs(self.x.indptr, self._max_pairs):
            products = entries(columns[pairs.left], columns[pairs.right]) * data[pairs.left] * data[pairs.right]
            products[pairs.left != pairs.right] *= 2.0
            size = pairs.rows.stop - pairs.rows.start
            out[pairs.rows] = np.bincount(pairs.row, products, minlength=size)
        if self.intercept:
            used, last = np.unique(columns), np.array([self.columns])
            to_last = np.zeros(self.columns)
            to_last[used] = entries(used, np.repeat(last, len(used)))
            out += 2.0 * self.intercept * (self.x @ to_last) + self.intercept**2 * entries(last, last)[0]
        return out


def _all_finite(values: NDArray[Any]) -> bool:
    return all(np.isfinite(values[block]).all() for block in blocks(len(values), FINITE_CHECK_CHUNK))


def _canonical(x: Any) -> Any:
    """CSR with sorted columns, each once; the caller's matrix stays as it is."""
    csr = x.tocsr()
    if csr.dtype.kind != "f":
        csr = csr.astype(np.float64)  # squares of small integer types would overflow
    if csr.has_canonical_format:
        return csr
    csr = csr.copy()
    csr.sum_duplicates()
    return csr

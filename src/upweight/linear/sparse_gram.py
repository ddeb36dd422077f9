"""The sparse matrix Xᵀ diag(w) X, with an entry for every pair of columns that meet in a row, also where it is 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from upweight.linear.features import Features

Array = NDArray[np.float64]


def with_intercept(features: Features) -> Any:
    """The features as a CSR matrix with the column of the intercept, (n, d)."""
    x = sparse.csr_matrix(features.x, dtype=np.float64)
    if not features.intercept:
        return x
    return sparse.hstack([x, np.full((len(features), 1), features.intercept)], format="csr")


def gram_pattern(x: Any) -> Any:
    """The pairs of columns that meet in a row, and the diagonal: a CSR matrix (d, d) of ones with sorted columns."""
    ones = sparse.csr_matrix((np.ones(x.nnz), x.indices, x.indptr), x.shape)
    pattern = sparse.csr_matrix(ones.T @ ones + sparse.identity(x.shape[1]))
    pattern.sort_indices()
    pattern.data[:] = 1.0
    return pattern


def gram_on(pattern: Any, x: Any, weights: Array) -> Array:
    """The entries of Xᵀ diag(w) X at the pattern's places, (entries,); a product alone leaves out sums that cancel."""
    product = sparse.csr_matrix(x.T @ sparse.csr_matrix(x.multiply(weights[:, None])))
    product.sort_indices()
    rows = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))
    return np.asarray(product[rows, pattern.indices], dtype=np.float64).ravel()

"""Gram coordinates: at most n columns for a model with a kernel, or with more columns than examples.

With an isotropic penalty the parameters lie in the span of the training inputs. So K = X Xᵀ = L Lᵀ gives features L
(n × rank) with the same inner products, and the dual form of a linear model is its primal form on L. A kernel machine
is the linear model on the L of its kernel matrix (Koh & Liang 2017, §5.1, do this for the RBF SVM).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack, solve_triangular

from upweight.core.matrix_products import expect_products

Array = NDArray[np.float64]
Kernel = Callable[[Any, Any], Array]


class GramCoordinates:
    """The map x ↦ L_r⁻¹ k(pivots, x), from a pivoted Cholesky factorisation of the training Gram matrix.

    Args:
        x: training inputs (n, d), dense or sparse.
        kernel: (a, b) ↦ matrix of kernel values; None for the inner product.
        tolerance: pivots below this share of the largest diagonal entry are dropped (repeated or dependent examples).
    """

    def __init__(self, x: Any, kernel: Kernel | None = None, tolerance: float = 1e-12) -> None:
        self.kernel = inner_product if kernel is None else kernel
        self.is_linear = kernel is None
        x = x.tocsr() if sparse.issparse(x) else x
        expect_products(x.shape[0] ** 3 / 3, 16.0 * x.shape[0] ** 2)
        gram = np.asfortranarray(self.kernel(x, x))
        largest = gram.diagonal().max()
        factor, pivots, rank, _ = lapack.dpstrf(gram, lower=1, tol=tolerance * largest, overwrite_a=1)
        order = pivots - 1
        lower = np.tril(factor[:, :rank])
        self.features = np.empty_like(lower)
        self.features[order] = lower
        self.pivots = order[:rank]
        self._corner = np.asfortranarray(lower[:rank])
        self._pivot_inputs = x[self.pivots]

    def transform(self, x: Any) -> Array:
        """Coordinates of new inputs, shape (m, rank)."""
        return self.solve(self.kernel(self._pivot_inputs, x)).T

    def lift(self, theta: Array) -> Array:
        """Parameters (K, d) on the columns from parameters (K, rank) in these coordinates, for inner products."""
        weights = solve_triangular(self._corner, theta.T, lower=True, trans="T")
        return np.asarray(self._pivot_inputs.T @ weights).T

    def solve(self, pivot_outputs: Array) -> Array:
        """L_r⁻¹ times outputs at the pivots (rank, k): the parameters with those outputs."""
        return np.asarray(solve_triangular(self._corner, pivot_outputs, lower=True))


def inner_product(a: Any, b: Any) -> Array:
    """a bᵀ as a dense float64 matrix, for dense or sparse inputs of any type."""
    a, b = (m if sparse.issparse(m) and m.dtype.kind == "f" else m.astype(np.float64) for m in (a, b))
    product = a @ b.T
    return product.toarray() if sparse.issparse(product) else np.asarray(product)

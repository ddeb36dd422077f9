"""Per-example gradients of a linear model, stored as feature vectors and output gradients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks
from upweight.core.rows import DenseRows, Rows, reciprocal_roots
from upweight.linear.features import Features

Array = NDArray[np.float64]
MAX_DENSE_NUMBERS = 4_000_000  # numbers of the dense rows in memory at a time: 32 MB


class FactoredRows(Rows):
    """Row i = outer(rᵢ, xᵢ) + shareᵢ · common.

    Args:
        features: the xᵢ, (n, d).
        slopes: the rᵢ, (n, K).
        share: (n,), each example's share of the regulariser's gradient; None if the objective sums losses.
        common: (K, d), the regulariser's gradient of a mean objective; None if the objective sums losses.
    """

    def __init__(
        self, features: Features, slopes: Array, share: Array | None = None, common: Array | None = None
    ) -> None:
        self.features = features
        self.slopes = slopes
        self.share = share
        self.common = common

    def __len__(self) -> int:
        return len(self.slopes)

    def dot(self, other: Rows) -> Array:
        """Inner products. Two factored sets use (X Xᵀ) ∘ (R Rᵀ), without a vector as long as the parameters."""
        if isinstance(other, FactoredRows) and self.common is None and other.common is None:
            from upweight.linear.gram_coordinates import inner_product

            x, other_x = (f.x if not f.intercept else f.dense() for f in (self.features, other.features))
            return inner_product(x, other_x) * (self.slopes @ other.slopes.T)
        return self._dot_vectors(other.dense())

    def _dot_vectors(self, flat: Array) -> Array:
        out = self._dot_sparse(flat) if self.features.sparse else self._dot_dense(flat)
        if self.common is not None and self.share is not None:
            out += np.outer(self.share, flat @ self.common.ravel())
        return out

    def _dot_dense(self, flat: Array) -> Array:
        """Products with one dense block of rows at a time, which is faster than a product per output."""
        out = np.empty((len(self), len(flat)))
        for block in blocks(len(self), max(1, MAX_DENSE_NUMBERS // flat.shape[1])):
            rows = self.slopes[block, :, None] * self.features.take(block).dense()[:, None, :]
            out[block] = rows.reshape(len(rows), -1) @ flat.T
        return out

    def _dot_sparse(self, flat: Array) -> Array:
        """One sparse product per output."""
        vectors = flat.reshape(len(flat), *self._shape())
        out = np.zeros((len(self), len(vectors)))
        for c in range(self.slopes.shape[1]):
            part = self.features.times(np.ascontiguousarray(vectors[:, c].T))
            part *= self.slopes[:, c, None]
            out += part
        return out

    def project(self, matrix: Array) -> Array:
        """dense() @ matrix."""
        return self._dot_vectors(np.ascontiguousarray(matrix.T))

    def dense(self) -> Array:
        """(n, K·d)."""
        out = self.slopes[:, :, None] * self.features.dense()[:, None, :]
        if self.common is not None and self.share is not None:
            out = out + self.share[:, None, None] * self.common
        return np.asarray(out.reshape(len(self), -1))

    def sums(self, membership: Array) -> DenseRows:
        """Weighted sums by one product with the features."""
        weighted = membership.T[:, :, None] * self.slopes[:, None, :]
        out = self.features.transposed_times(weighted.reshape(len(self), -1)).T.reshape(len(membership), -1)
        if self.common is not None and self.share is not None:
            out = out + np.outer(membership @ self.share, self.common)
        return DenseRows(np.asarray(out))

    def squares(self) -> Array:
        """‖r‖²‖x‖², plus the terms of the common part."""
        out = self.features.squares() * (self.slopes**2).sum(axis=1)
        if self.common is not None and self.share is not None:
            cross = np.einsum("nk,nk->n", self.slopes, self.features.times(self.common.T))
            out = out + 2.0 * self.share * cross + self.share**2 * (self.common**2).sum()
        return np.asarray(out)

    def normalised(self, by_layer: bool = False) -> FactoredRows:
        """Every row divided by its norm; a linear model is one layer."""
        scale = reciprocal_roots(self.squares())
        share = None if self.share is None else self.share * scale
        return FactoredRows(self.features, self.slopes * scale[:, None], share, self.common)

    def take(self, positions: NDArray[np.intp] | slice) -> FactoredRows:
        """The rows at these positions."""
        share = None if self.share is None else self.share[positions]
        return FactoredRows(self.features.take(positions), self.slopes[positions], share, self.common)

    def _shape(self) -> tuple[int, int]:
        return self.slopes.shape[1], self.features.width

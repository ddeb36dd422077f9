"""Sums over leaves whose values are solved for in all outputs together, with the full Hessian of the loss.

CatBoost does so for several classes: −learning_rate · (H + l2)⁻¹ G with H (K, K) summed over the examples of a leaf.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.ensemble import Indices

Array = NDArray[np.float64]


def joint_sums(
    loss: BoostingLoss, leaf_matrix: sparse.csr_matrix, margins: Array, targets: Array, removed: Sequence[Indices]
) -> tuple[Array, Array]:
    """G (leaves, removals, K) and H (leaves, removals, K, K) at margins (K, n, removals) without these examples."""
    outputs, n, columns = margins.shape
    expanded, remaining = targets[..., None], np.ones((n, columns))
    for column, rows in enumerate(removed):
        remaining[rows, column] = 0.0
    gradient, _ = loss.derivatives(margins, expanded)
    count = leaf_matrix.shape[0]
    g, h = np.empty((count, columns, outputs)), np.empty((count, columns, outputs, outputs))
    for first in range(outputs):
        g[..., first] = leaf_matrix @ (gradient[first] * remaining)
        for second in range(first + 1):
            mixed = loss.mixed_derivative(gradient, expanded, first, second)
            h[..., first, second] = h[..., second, first] = leaf_matrix @ (mixed * remaining)
    return g, h

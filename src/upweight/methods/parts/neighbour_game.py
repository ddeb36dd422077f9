"""The k-nearest-neighbour game: Shapley values of examples in a nearest-neighbour vote, in closed form (Jia 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.input_kinds import is_sparse

Array = NDArray[np.float64]


def neighbour_values(
    features: Any, labels: NDArray[Any] | None, query_features: Any, targets: NDArray[Any] | None, k: int
) -> Array:
    """Shapley values (m, n) of training examples for queries; without one label each, the nearest has the largest."""
    order = np.argsort(squared_distances(query_features, features), axis=1, kind="stable")
    if labels is None or targets is None or labels.ndim > 1 or targets.ndim > 1:
        player_values = np.broadcast_to(1.0 / np.arange(1, order.shape[1] + 1), order.shape)
    elif labels.dtype.kind == "f":
        player_values = regression_values(labels[order], targets.astype(float), k)
    else:
        player_values = classification_values(labels[order] == targets[:, None], k)
    values = np.empty(order.shape)
    np.put_along_axis(values, order, player_values, axis=1)
    return values


def classification_values(same: NDArray[np.bool_], k: int) -> Array:
    """Values of examples in the order of their distance, from whether they have the query's label; both (m, n).

    Theorem 1: s_N = [y_N = y] min(k, N)/(kN), s_i = s_{i+1} + ([y_i = y] − [y_{i+1} = y]) min(k, i)/(ki).
    """
    n = same.shape[1]
    share = np.minimum(k, np.arange(1, n + 1)) / (k * np.arange(1, n + 1))
    steps = same.astype(np.float64)
    steps[:, :-1] -= same[:, 1:]
    return np.cumsum((steps * share)[:, ::-1], axis=1)[:, ::-1]


def regression_values(targets: Array, target: Array, k: int) -> Array:
    """Values of examples in the order of their distance, from their targets (m, n) and those of the queries (m,).

    Theorem 2, with the utility −t² of the empty coalition.
    With mᵢ = min(k, i) and B_l = min(k−1, l−2) min(k, l−1) / ((l−1)(l−2)):

        s_N = −y_N/k ((m_N/N) (y_N/k − 2t) + m_N (m_N − 1) / (k N (N−1)) Σ_{l<N} y_l)
        s_i = s_{i+1} + (y_{i+1} − y_i)/k ((mᵢ/i) ((y_i + y_{i+1})/k − 2t + (mᵢ−1) / (k (i−1)) Σ_{l<i} y_l)
                                           + 1/k Σ_{l≥i+2} B_l y_l)
    """
    n = targets.shape[1]
    i, t = np.arange(1, n + 1), target[:, None]
    m = np.minimum(k, i)
    nearer = np.cumsum(targets, axis=1) - targets
    pairs = (m - 1) / np.maximum(i - 1, 1) * nearer / k  # of the example with every nearer one
    values = np.empty_like(targets)
    values[:, -1] = -targets[:, -1] / k * m[-1] / n * (targets[:, -1] / k - 2 * target + pairs[:, -1])
    weights = np.minimum(k - 1, i - 2) * m[np.maximum(i - 2, 0)] / np.maximum((i - 1) * (i - 2), 1)
    farther = np.cumsum((weights * targets)[:, ::-1], axis=1)[:, ::-1] / k  # from the example itself on
    farther = np.concatenate([farther[:, 2:], np.zeros((len(targets), 1))], axis=1)[:, : n - 1]
    current, following = targets[:, :-1], targets[:, 1:]
    factor = m[:-1] / i[:-1] * ((current + following) / k - 2 * t + pairs[:, :-1]) + farther
    values[:, :-1] = (following - current) / k * factor
    return np.cumsum(values[:, ::-1], axis=1)[:, ::-1]


def squared_distances(queries: Any, train: Any) -> Array:
    """Squared Euclidean distances (m, n)."""
    if is_sparse(train):
        from sklearn.metrics.pairwise import euclidean_distances

        return np.asarray(euclidean_distances(queries, train, squared=True))
    from scipy.spatial.distance import cdist

    q, x = (np.asarray(part, dtype=np.float64).reshape(len(part), -1) for part in (queries, train))
    return np.asarray(cdist(q, x, "sqeuclidean"))

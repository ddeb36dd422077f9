"""The strongest proponents and opponents of every query, selected from blocks of scores as they are computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import Answer
from upweight.core.scores import require_finite


def strongest_of(
    answer: Answer, m: int, k: int, may_be_nan: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The k largest and k smallest scores of every query: (values, columns), (m, ≤ 2k) each, largest first.

    NaN is a score that is not known (see `Scores`): neither large nor small, and last in the order.

    Holds one block and 2k scores per query at a time.
    """
    values, positions = np.empty((m, 0)), np.empty((m, 0), dtype=np.intp)
    for where, block in answer:
        columns = np.broadcast_to(np.arange(where.start, where.stop), block.shape)
        values, positions = np.hstack([values, require_finite(block, may_be_nan)]), np.hstack([positions, columns])
        if values.shape[1] > 2 * k:
            strongest = _is_strongest(np.nan_to_num(values) if may_be_nan else values, k)
            values, positions = values[strongest].reshape(m, 2 * k), positions[strongest].reshape(m, 2 * k)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(positions, order, axis=1)


def _is_strongest(values: NDArray[np.float64], k: int) -> NDArray[np.bool_]:
    """Mask of the k largest and k smallest of every row; of equal values the first, so that blocks do not matter."""
    high = _largest(values, k)
    return high | _largest(np.where(high, -np.inf, -values), k)


def _largest(values: NDArray[np.float64], k: int) -> NDArray[np.bool_]:
    """Mask of the k largest of every row; of equal values the first."""
    least = -np.partition(-values, k - 1, axis=1)[:, k - 1, None]
    above, equal = values > least, values == least
    missing = k - above.sum(axis=1, keepdims=True)
    largest: NDArray[np.bool_] = above | (equal & (np.cumsum(equal, axis=1) <= missing))
    return largest

"""The strongest proponents and opponents of every query, selected from blocks of scores as they are computed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import Answer
from upweight.core.forecast import watched
from upweight.core.scores import require_finite

Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]


class GroupSums:
    """Sums of scores over groups of training examples, from blocks as they are computed.

    Args:
        group_of: (n,) the group of every training example.
        groups: their number.
        m: queries.
    """

    def __init__(self, group_of: NDArray[np.intp], groups: int, m: int) -> None:
        self._group_of, self._groups, self._m = group_of, groups, m
        self.values = np.zeros((m, groups))

    def add(self, where: slice, block: NDArray[np.float64]) -> None:
        """Add the scores of some training examples, (m, block)."""
        cells = self._group_of[where] + self._groups * np.arange(self._m)[:, None]
        sums = np.bincount(cells.ravel(), weights=block.ravel(), minlength=self.values.size)
        self.values += sums.reshape(self.values.shape)


class StrongestOfBatches:
    """The strongest scores of queries that come in batches, and the sums of groups of training examples.

    Args:
        k: how many at each end.
        groups: (their names, the group of every training example), or None.
        may_be_nan: whether scores may be NaN.
    """

    def __init__(
        self, k: int, groups: tuple[NDArray[Any], NDArray[np.intp]] | None = None, may_be_nan: bool = False
    ) -> None:
        self._k, self._groups, self._may_be_nan = k, groups, may_be_nan
        self._strongest = list[tuple[NDArray[np.float64], NDArray[np.intp]]]()
        self._sums = list[GroupSums]()

    def add(self, answer: Answer, queries: int) -> NDArray[np.float64]:
        """Select from the answer to a batch; returns the largest absolute score of each of its queries."""
        sums = None
        if self._groups is not None:
            sums = GroupSums(self._groups[1], len(self._groups[0]), queries)
            self._sums.append(sums)
        values, positions = strongest_of(answer, queries, self._k, self._may_be_nan, sums)
        self._strongest.append((values, positions))
        return np.asarray(np.abs(values).max(axis=1, initial=0.0))

    @property
    def selected(self) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """(values, columns) of all queries, (m, ≤ 2k) each, largest first."""
        return np.vstack([each[0] for each in self._strongest]), np.vstack([each[1] for each in self._strongest])

    @property
    def sums(self) -> NDArray[np.float64]:
        """Sums of scores over groups, (m, groups)."""
        return np.vstack([each.values for each in self._sums])


def strongest_of(
    answer: Answer, m: int, k: int, may_be_nan: bool = False, sums: GroupSums | None = None
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The k largest and k smallest scores of every query: (values, columns), (m, ≤ 2k) each, largest first.

    Every block is also added to `sums`, if that is given. NaN is a score that is not known (see `Scores`): neither
    large nor small, and last in the order.

    Holds one block and 2k scores per query at a time. A block is merged only for the queries of which it holds a score
    beyond those selected before.
    """
    values, positions = np.empty((m, 0)), np.empty((m, 0), dtype=np.intp)
    bounds: Bounds | None = None
    for where, block in watched(answer, "scores of training examples", answer.train):
        if sums is not None:
            sums.add(where, block)
        highest, lowest = block.max(axis=1, initial=-np.inf), block.min(axis=1, initial=np.inf)
        if block.size and not (np.isfinite(highest) & np.isfinite(lowest)).all():
            require_finite(block, may_be_nan)
        columns = np.arange(where.start, where.stop)
        if bounds is not None:
            beyond = np.flatnonzero(~((highest <= bounds[0]) & (lowest >= bounds[1])))
            if len(beyond):
                part = block[beyond]
                inside = (part <= bounds[0][beyond, None]) & (part >= bounds[1][beyond, None])
                few = np.flatnonzero(~inside.all(axis=0))  # columns that may be selected for any query
                wide = np.hstack([values[beyond], part[:, few]])
                where_from = np.hstack([positions[beyond], np.broadcast_to(columns[few], (len(beyond), len(few)))])
                strongest = _is_strongest(np.nan_to_num(wide) if may_be_nan else wide, k)
                values[beyond] = wide[strongest].reshape(-1, 2 * k)
                positions[beyond] = where_from[strongest].reshape(-1, 2 * k)
                bounds[0][beyond], bounds[1][beyond] = _bounds(values[beyond], k, may_be_nan)
            continue
        values = np.hstack([values, block])
        positions = np.hstack([positions, np.broadcast_to(columns, block.shape)])
        if values.shape[1] > 2 * k:
            strongest = _is_strongest(np.nan_to_num(values) if may_be_nan else values, k)
            values, positions = values[strongest].reshape(m, 2 * k), positions[strongest].reshape(m, 2 * k)
            bounds = _bounds(values, k, may_be_nan)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(positions, order, axis=1)


def _bounds(values: NDArray[np.float64], k: int, may_be_nan: bool) -> Bounds:
    """The smallest of the k largest and the largest of the k smallest of every row of 2k values."""
    ordered = np.sort(np.nan_to_num(values) if may_be_nan else values, axis=1)
    return ordered[:, k], ordered[:, k - 1]


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

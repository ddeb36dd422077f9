"""Distances between queries and training examples, and training examples that are copies of a query."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks
from upweight.core.example_columns import is_missing
from upweight.core.examples import Examples
from upweight.core.identity import checksum
from upweight.core.input_kinds import columns_of, is_sparse, take_rows
from upweight.core.weights import weighted_positions

Array = NDArray[np.float64]
MAX_DISTANCES = 1_000_000  # in memory at a time
NEIGHBOURS = 2_000  # training examples that the usual distance between neighbours is taken from
NEAR = 0.2  # share of the usual distance between neighbours, up to which examples are nearly equal
TAIL = 0.1  # share of the training examples, those nearest to another one, that the tail's exponent is estimated from


@dataclass(frozen=True)
class NearestExample:
    """The training example nearest to a query.

    Attributes:
        position: of the training example.
        is_equal: its inputs are those of the query.
        distance: in units of the usual (median) distance between a training example and its nearest other one.
        tail: the probability of one as near, estimated from the training examples and their nearest others.
    """

    position: int
    is_equal: bool
    distance: float
    tail: float

    @property
    def is_copy(self) -> bool:
        """Whether it is equal or nearly equal to the query."""
        return self.is_equal or self.distance <= NEAR


class FeatureSpace:
    """Euclidean distances between features, (n, d) of the training examples and (m, d) of the queries."""

    def __init__(self, train: Any, queries: Any, present: NDArray[np.intp], max_distances: int = MAX_DISTANCES) -> None:
        self.present, self.max_distances = present, max_distances
        centre = 0.0 if is_sparse(train) else np.asarray(train, dtype=np.float64)[present].mean(axis=0)
        self.train = _centred(train, centre)[present]
        self.queries = _centred(queries, centre)
        self._columns = self.train.T.tocsr() if is_sparse(self.train) else self.train.T
        self._squares = _squares(self.train)

    def distances(self, rows: Any) -> Array:
        """Squared distances of these rows to the training examples that are present, (rows, present)."""
        inner = rows @ self._columns
        squares: Array = inner.toarray() if is_sparse(inner) else np.asarray(inner)
        squares *= -2.0
        squares += _squares(rows)[:, None]
        squares += self._squares
        return np.maximum(squares, 0.0, out=squares)

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """(queries, their squared distances to the training examples that are present), block by block."""
        for block in blocks(self.queries.shape[0], max(1, self.max_distances // len(self.present))):
            yield block, self.distances(self.queries[block])

    def of_training(self, positions: NDArray[np.intp]) -> Any:
        """The features of training examples that are present."""
        return self.train[np.searchsorted(self.present, positions)]

    def exact(self, rows: Any, nearest: NDArray[np.intp]) -> Array:
        """The distance of every row to one training example, from the difference: no digits cancel."""
        return np.sqrt(_squares(rows - self.train[nearest]))

    def neighbour_distances(self, seed: int = 0) -> Array:
        """The distance to the nearest other one, of all training examples or of `NEIGHBOURS` of them."""
        count = len(self.present)
        chosen = np.arange(count)
        if count > NEIGHBOURS:
            chosen = np.sort(np.random.default_rng(seed).choice(count, NEIGHBOURS, replace=False))
        nearest = np.empty(len(chosen))
        for block in blocks(len(chosen), max(1, self.max_distances // count)):
            squares = self.distances(self.train[chosen[block]])
            squares[np.arange(len(squares)), chosen[block]] = np.inf
            nearest[block] = self.exact(self.train[chosen[block]], squares.argmin(axis=1))
        return nearest


def nearest_examples(space: FeatureSpace | None, train: Examples, queries: Examples) -> list[NearestExample | None]:
    """The nearest training example of every query; one of equal inputs if there is one, else None without a space."""
    present = weighted_positions(train)
    equal, repeated = equal_rows(train, queries, present)
    nearest: list[NearestExample | None] = [
        None if position is None else NearestExample(position, True, 0.0, repeated) for position in equal
    ]
    if space is None:
        return nearest
    usual = space.neighbour_distances()
    unit = float(np.median(usual)) or 1.0
    for block, squares in space.blocks():
        places = squares.argmin(axis=1)
        distances = space.exact(space.queries[block], places)
        tails = lower_tail(distances, usual)
        for query in range(block.start, block.stop):
            if nearest[query] is None:
                i = query - block.start
                position = int(present[places[i]])
                nearest[query] = NearestExample(position, False, float(distances[i]) / unit, float(tails[i]))
    return nearest


def lower_tail(distances: Array, sample: Array) -> Array:
    """The probability of distances at most as large as these, given a sample.

    The share of the sample; below its `TAIL` quantile r at least TAIL · (d / r)^δ, with δ by Hill (1975): the sample
    may be too small to hold one that is as near.
    """
    ordered = np.sort(sample)
    shares = np.searchsorted(ordered, distances, side="right") / len(ordered)
    count = max(min(10, len(ordered)), int(TAIL * len(ordered)))
    bound = ordered[count - 1]
    below = ordered[:count][(ordered[:count] > 0) & (ordered[:count] < bound)]
    if len(below) == 0:
        return shares
    exponent = 1.0 / float(np.mean(np.log(bound / below)))
    extrapolated = count / len(ordered) * np.minimum(distances / bound, 1.0) ** exponent
    return np.where(distances < bound, np.maximum(shares, extrapolated), shares)


def equal_rows(train: Examples, queries: Examples, present: NDArray[np.intp]) -> tuple[list[int | None], float]:
    """(for every query the first training example with equal inputs, or None; the share of training examples that
    are equal to another one).
    """
    keys = _row_keys(take_rows(train.x, present))
    counts = Counter(keys)
    first: dict[Hashable, int] = {}
    for position, key in zip(present.tolist(), keys, strict=True):
        first.setdefault(key, position)
    repeated = sum(count for count in counts.values() if count > 1) / len(keys)
    return [first.get(key) for key in _row_keys(queries.x)], repeated


def _row_keys(x: Any) -> list[Hashable]:
    if isinstance(x, np.ndarray) and x.dtype.kind in "iufb":
        rows = np.ascontiguousarray(x.reshape(len(x), -1).astype(np.float64)) + 0.0  # −0 is 0
        return [row.tobytes() for row in rows]
    if columns_of(x) is not None:
        columns = ([_cell_key(value) for value in np.asarray(x[name]).tolist()] for name in x.columns)
        return list(zip(*columns, strict=True))
    if is_sparse(x):
        matrix = x.tocsr().copy()
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        indices, values = matrix.indices.astype(np.int64), matrix.data.astype(np.float64)
        parts = (slice(*ends) for ends in pairwise(matrix.indptr.tolist()))
        return [(indices[part].tobytes(), values[part].tobytes()) for part in parts]
    if isinstance(x, list | tuple) and all(isinstance(text, str) for text in x):
        return list(x)
    return [checksum(take_rows(x, np.array([i]))) for i in range(len(x))]


def _cell_key(value: Any) -> Hashable:
    """Numbers are compared as numbers, whatever their type, and missing values are equal to each other."""
    if is_missing(value):
        return None
    return float(value) if isinstance(value, int | float) else str(value)


def _centred(features: Any, centre: Any) -> Any:
    return features.tocsr() if is_sparse(features) else np.asarray(features, dtype=np.float64) - centre


def _squares(rows: Any) -> Array:
    squares = rows.multiply(rows) if is_sparse(rows) else rows**2
    return np.asarray(squares.sum(axis=1), dtype=np.float64).ravel()

"""Distances between rows of numbers and categories, and random rows at a given distance from a query."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upweight.applications.interpretable.columns import Columns

Array = NDArray[np.float64]
Positions = NDArray[np.intp]


class MixedSpace:
    """The squared distance of two rows: Σ (difference / standard deviation)² over numbers, plus 1 per other category.

    A number that is missing in one of them counts as a category. Standard deviations, ranges and the categories that
    are drawn are those of the training examples that are present.

    Attributes:
        columns: of the training set and the query.
        query: its codes, (d,).
        farthest: the largest distance of a row within the ranges.
    """

    def __init__(self, columns: Columns, present: Positions) -> None:
        self.columns, self.query = columns, columns.codes[-1]
        train = columns.codes[present]
        self._scale = np.array([_deviation(column) for column in train.T])
        seen = np.concatenate([train, self.query[None]])
        self._low = np.where(np.isnan(seen), np.inf, seen).min(axis=0)
        self._high = np.where(np.isnan(seen), -np.inf, seen).max(axis=0)
        moves = columns.is_number & (self._scale > 0) & ~np.isnan(self.query)
        self._numbers = np.flatnonzero(moves)
        others = {j: train[train[:, j] != self.query[j], j] for j in np.flatnonzero(~columns.is_number).tolist()}
        self._others = {j: codes for j, codes in others.items() if len(codes)}
        ends = np.maximum(self._high - self.query, self.query - self._low)[self._numbers] / self._scale[self._numbers]
        self.farthest = float(np.sqrt((ends**2).sum() + len(self._others)))

    def moves(self, codes: Array) -> Array:
        """|difference| of every column from the query, in standard deviations; 1 for another category: (m, d)."""
        numbers = self.columns.is_number
        missing = np.isnan(codes) != np.isnan(self.query)
        differences = np.abs(codes - self.query) / np.where(self._scale > 0, self._scale, 1.0)
        sizes = np.where(missing, 1.0, np.nan_to_num(differences))
        return np.where(numbers, sizes, codes != self.query)

    def distances(self, codes: Array) -> Array:
        """The distance of these rows (m, d) from the query, (m,)."""
        return np.asarray(np.sqrt((self.moves(codes) ** 2).sum(axis=1)))

    def ring(self, low: float, high: float, count: int, rng: np.random.Generator) -> Array:
        """Random rows whose distance from the query is between these, (at most count, d).

        The number of other categories is drawn first, then the numbers, uniformly in what the ring leaves of their
        space. Numbers are brought into the range of the training set, and made whole where all of a column are.
        """
        most = min(len(self._others), int(np.floor(high**2)))
        least = 0 if len(self._numbers) else int(np.floor(low**2)) + (low > 0)
        if least > most:
            return np.empty((0, len(self.query)))
        codes = np.tile(self.query, (count, 1))
        changed = rng.integers(least, most + 1, count)
        self._change_categories(codes, changed, rng)
        if len(self._numbers):
            inner = np.sqrt(np.maximum(low**2 - changed, 0.0))
            outer = np.sqrt(high**2 - changed)
            self._move_numbers(codes, inner, outer, rng)
        return codes

    def _change_categories(self, codes: Array, changed: NDArray[np.int64], rng: np.random.Generator) -> None:
        if not self._others:
            return
        ranks = rng.random((len(codes), len(self._others))).argsort(axis=1).argsort(axis=1)
        for place, (j, others) in enumerate(self._others.items()):
            rows = np.flatnonzero(ranks[:, place] < changed)
            codes[rows, j] = rng.choice(others, len(rows))

    def _move_numbers(self, codes: Array, inner: Array, outer: Array, rng: np.random.Generator) -> None:
        numbers, k = self._numbers, len(self._numbers)
        directions = rng.standard_normal((len(codes), k))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        shares = (inner / np.where(outer > 0, outer, 1.0)) ** k
        radii = outer * rng.uniform(shares, 1.0) ** (1.0 / k)
        moved = self.query[numbers] + radii[:, None] * directions * self._scale[numbers]
        moved = np.clip(moved, self._low[numbers], self._high[numbers])
        for place, j in enumerate(numbers.tolist()):
            codes[:, j] = self.columns.rounded(j, moved[:, place])


def _deviation(column: Array) -> float:
    present = column[~np.isnan(column)]
    return float(present.std()) if len(present) else 0.0

"""One layer's part of some rows: pairs of factors, plain numbers, or rows of a table; products without the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.store.factors import Factors, Span

Floats = NDArray[np.float32]
Array = NDArray[np.float64]
NUMBERS_AT_A_TIME = 1 << 19  # of rows that are turned into floats: 2 MB
LEAST_ROWS = 64  # that are multiplied at once
SHORTEST_GAP = 64  # numbers that are left out; rows are read in short parts at a third of the speed


@dataclass(frozen=True, eq=False)
class Numbers:
    """Row i is scaleᵢ · valuesᵢ.

    Attributes:
        values: (n, k).
        scale: (n,); None for ones.
    """

    values: NDArray[Any]
    scale: Floats | None = None

    def __len__(self) -> int:
        return len(self.values)

    def matrix(self) -> Floats:
        """The rows, (n, k)."""
        values = self.values.astype(np.float32, copy=False)
        return values if self.scale is None else values * self.scale[:, None]

    def take(self, where: Any) -> Numbers:
        """The rows at these positions."""
        return Numbers(self.values[where], None if self.scale is None else self.scale[where])

    def times(self, factors: Factors) -> Numbers:
        """Every row times these factors, elementwise."""
        return Numbers(self.matrix() * factors.flat)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Row i is Σ_c scale_ic · left_ic right_icᵀ, times the factors elementwise.

    Attributes:
        left: (n, c, p).
        right: (n, c, q).
        scale: (n, c); None for ones.
        factors: (p, q), which are multiplied with as separable terms; None for ones.
    """

    left: NDArray[Any]
    right: NDArray[Any]
    scale: Floats | None = None
    factors: Factors | None = None

    def __len__(self) -> int:
        return len(self.left)

    @property
    def rank(self) -> int:
        """Pairs of a row."""
        return int(self.left.shape[1])

    @property
    def numbers(self) -> int:
        """Numbers of a row that is multiplied out."""
        return int(self.left.shape[2] * self.right.shape[2])

    @property
    def multiplications(self) -> int:
        """Those of numbers in an inner product with one pair without factors."""
        of_pair = int(self.left.shape[2] + self.right.shape[2])
        return self.rank * (of_pair if self.factors is None else self.factors.multiplications)

    def terms(self) -> Iterator[tuple[Span, Floats, Floats]]:
        """(span, left (n, ·), right (n, ·)) of every separable term of every pair, with the scales in the left ones."""
        of_left, of_right = (_floats(side.transpose(1, 0, 2)) for side in (self.left, self.right))
        if self.scale is not None:
            of_left *= self.scale.T[:, :, None]
        for left, right in zip(of_left, of_right, strict=True):
            if self.factors is None:
                yield (slice(0, left.shape[1]), slice(0, right.shape[1])), left, right
                continue
            for u, v, (on_left, on_right) in zip(*self.factors.terms, self.factors.spans, strict=True):
                yield (on_left, on_right), left[:, on_left] * u[on_left], right[:, on_right] * v[on_right]

    def matrix(self) -> Floats:
        """The rows multiplied out, (n, p·q)."""
        left, right = (side.astype(np.float32, copy=False) for side in (self.left, self.right))
        if self.scale is not None:
            left = left * self.scale[:, :, None]
        product: Floats = np.matmul(left.transpose(0, 2, 1), right).reshape(len(left), -1)
        if self.factors is not None:
            product *= self.factors.flat
        return product

    def take(self, where: Any) -> Pairs:
        """The rows at these positions."""
        return replace(
            self,
            left=self.left[where],
            right=self.right[where],
            scale=None if self.scale is None else self.scale[where],
        )

    def times(self, factors: Factors) -> Pairs | Numbers:
        """Every row times these factors, elementwise: as pairs, if few separable terms make up the factors."""
        if self.factors is not None or self.rank * factors.multiplications >= self.numbers:
            return Numbers(self.matrix() * factors.flat)
        return replace(self, factors=factors)


@dataclass(frozen=True, eq=False)
class Lookups:
    """Row i is Σ_t scale_it · e(ids_it) values_itᵀ with unit vectors e: the rows of a table that an example looks up.

    Attributes:
        ids: (n, t) integers below `table`; they may repeat.
        values: (n, t, k).
        scale: (n, t); None for ones.
        table: rows of the table.
    """

    ids: NDArray[Any]
    values: NDArray[Any]
    scale: Floats | None
    table: int

    def __len__(self) -> int:
        return len(self.ids)

    def vectors(self) -> Floats:
        """The values with their scales, (n, t, k)."""
        values = self.values.astype(np.float32, copy=False)
        return values if self.scale is None else values * self.scale[:, :, None]

    def matrix(self) -> Floats:
        """The rows multiplied out, (n, table·k)."""
        out = np.zeros((len(self), self.table, self.values.shape[2]), dtype=np.float32)
        np.add.at(out, (np.arange(len(self))[:, None], self.ids), self.vectors())
        return out.reshape(len(self), -1)

    def take(self, where: Any) -> Lookups:
        """The rows at these positions."""
        return replace(
            self,
            ids=self.ids[where],
            values=self.values[where],
            scale=None if self.scale is None else self.scale[where],
        )

    def times(self, factors: Factors) -> Lookups:
        """Every row times these factors, elementwise."""
        return replace(self, values=self.values * factors.values.astype(np.float32)[self.ids])


RowBlock = Numbers | Pairs | Lookups


def times_sizes(block: RowBlock, left: Array, right: Array) -> RowBlock:
    """Every row times left ⊗ right (p, q); the form of the block stays."""
    if isinstance(block, Numbers):
        return Numbers(block.values * np.outer(left, right).ravel().astype(np.float32), block.scale)
    if isinstance(block, Lookups):
        sizes = left.astype(np.float32)[block.ids][:, :, None] * right.astype(np.float32)
        return replace(block, values=block.values * sizes)
    return replace(block, left=block.left * left.astype(np.float32), right=block.right * right.astype(np.float32))


def products(queries: RowBlock, rows: RowBlock, out: Floats) -> None:
    """Add the inner products of all pairs of rows to `out` (m, n); `rows` may hold integers with their scales."""
    if isinstance(rows, Pairs) and rows.factors is not None:
        if isinstance(queries, Pairs) and queries.factors is None:
            products(rows, queries, out.T)
            return
        rows = Numbers(rows.matrix())
    if isinstance(queries, Pairs) and isinstance(rows, Pairs) and queries.multiplications * rows.rank < rows.numbers:
        _add_products_of_pairs(queries, rows, out)
        return
    if isinstance(rows, Lookups):
        _add_products_of_lookups(queries.matrix(), rows, out)
        return
    if isinstance(rows, Pairs) and rows.rank == 1 and rows.scale is not None:
        rows = Numbers(Pairs(rows.left, rows.right).matrix(), rows.scale[:, 0])
    numbers = rows.values if isinstance(rows, Numbers) else rows.matrix()
    added = _products_of_numbers(queries.matrix(), numbers)
    if isinstance(rows, Numbers) and rows.scale is not None:
        added *= rows.scale
    out += added


def _products_of_numbers(queries: Floats, rows: NDArray[Any]) -> Floats:
    """`queries @ rows.T`, a part at a time that stays in the processor's cache while integers become floats.

    Numbers that are 0 in all queries are left out.
    """
    used = _used(queries)
    size = sum(span.stop - span.start for span in used)
    if rows.dtype == np.float32 and size == rows.shape[1]:
        return np.asarray(queries @ rows.T)
    of_queries = _floats(np.concatenate([queries[:, span] for span in used], axis=1))
    count = max(LEAST_ROWS, NUMBERS_AT_A_TIME // max(1, size))
    buffer = np.empty((min(count, len(rows)), size), dtype=np.float32)
    out = np.empty((len(queries), len(rows)), dtype=np.float32)
    for start in range(0, len(rows), count):
        part = rows[start : start + count]
        floats, filled = buffer[: len(part)], 0
        for span in used:
            column, filled = filled, filled + span.stop - span.start
            np.copyto(floats[:, column:filled], part[:, span])
        np.matmul(of_queries, floats.T, out=out[:, start : start + count])
    return out


def _add_products_of_pairs(queries: Pairs, rows: Pairs, out: Floats) -> None:
    """Σ (left·left')(right·right') over both sets of pairs; scales multiply products, not the numbers.

    Numbers that are 0 in all queries are left out.
    """
    left, right = (_floats(side.reshape(-1, side.shape[2])) for side in (rows.left, rows.right))
    added = np.zeros((len(queries), len(left)), dtype=np.float32)
    by_left, by_right = np.empty_like(added), np.empty_like(added)
    for term, ((on_left, on_right), of_left, of_right) in enumerate(queries.terms()):
        product = by_left if term else added
        np.matmul(of_left, left[:, on_left].T, out=product)
        np.matmul(of_right, right[:, on_right].T, out=by_right)
        product *= by_right
        if term:
            added += product
    if rows.scale is not None:
        added *= rows.scale.ravel()
    out += added if rows.rank == 1 else added.reshape(len(added), -1, rows.rank).sum(axis=2)


def _add_products_of_lookups(queries: Floats, rows: Lookups, out: Floats) -> None:
    """Every row of the table that occurs is multiplied once, by all vectors that are about it."""
    by_table = np.ascontiguousarray(queries.reshape(len(queries), rows.table, -1).transpose(1, 0, 2))
    length = rows.ids.shape[1]
    count = max(1, NUMBERS_AT_A_TIME // max(1, length * max(len(queries), rows.values.shape[2])))
    for start in range(0, len(rows), count):
        part = rows.take(slice(start, start + count))
        ids, vectors = part.ids.ravel(), part.vectors().reshape(len(part) * length, -1)
        order = np.argsort(ids, kind="stable")
        products_of = np.empty((len(ids), len(queries)), dtype=np.float32)
        for inside in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1):
            products_of[inside] = vectors[inside] @ by_table[ids[inside[0]]].T
        out[:, start : start + count] += products_of.reshape(len(part), length, -1).sum(axis=1).T


def _floats(numbers: NDArray[Any]) -> Floats:
    """A copy in single precision and in this order."""
    return np.array(numbers, dtype=np.float32, order="C")


def _used(numbers: Floats) -> list[slice]:
    """Columns of (n, k) in which some row is not 0, in runs; short gaps between two of them belong to a run."""
    used = np.flatnonzero(numbers.any(axis=0))
    if not len(used):
        return [slice(0, 0)]
    ends = np.flatnonzero(np.diff(used) > SHORTEST_GAP)
    starts, stops = used[np.append(0, ends + 1)], used[np.append(ends, -1)] + 1
    return [slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]

"""Pairs of stored numbers in the same row of a sparse matrix, in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.intp]
MAX_PAIRS = 4_000_000  # pairs in memory at a time


class RowPairs(NamedTuple):
    """All pairs of a block of rows: each number with itself and with those after it in its row.

    Attributes:
        rows: the block.
        row: of every pair, counted from the start of the block, (pairs,).
        left, right: positions of its numbers among the stored ones, left ≤ right, (pairs,).
    """

    rows: slice
    row: Positions
    left: Positions
    right: Positions


def row_pairs(pointers: NDArray[np.integer], max_pairs: int = MAX_PAIRS) -> Iterator[RowPairs]:
    """The pairs of every row of a CSR matrix with these row pointers (n + 1,)."""
    counts = np.diff(pointers).astype(np.int64)
    edges = np.concatenate([[0], np.cumsum(counts * (counts + 1) // 2)])
    start = 0
    while start < len(counts):
        stop = max(start + 1, int(np.searchsorted(edges, edges[start] + max_pairs, side="right")) - 1)
        first = np.arange(pointers[start], pointers[stop])
        partners = np.repeat(pointers[start + 1 : stop + 1], counts[start:stop]) - first
        left = np.repeat(first, partners)
        right = left + np.arange(len(left)) - np.repeat(np.cumsum(partners) - partners, partners)
        row = np.repeat(np.arange(stop - start), np.diff(edges[start : stop + 1]))
        yield RowPairs(slice(start, stop), row, left, right)
        start = stop

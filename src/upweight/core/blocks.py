"""Blocks: a long range as consecutive slices of bounded size."""

from __future__ import annotations

from collections.abc import Iterator


def blocks(count: int, size: int, start: int = 0) -> Iterator[slice]:
    """Consecutive slices of `size` positions that cover range(start, count); the last one may be shorter.

    >>> list(blocks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for first in range(start, count, size):
        yield slice(first, min(first + size, count))

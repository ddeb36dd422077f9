"""A limit of the memory that gradients may take: how many are captured and held at a time follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from upweight.core.blocks import require_count

BYTES_OF_A_NUMBER = 4
_limit: ContextVar[int | None] = ContextVar("memory_limit", default=None)


@contextmanager
def memory_limit(count: int) -> Iterator[None]:
    """A context in which gradients take at most about this many bytes beside the net, its data and the scores.

    Fewer examples then go through the net at a time, fewer gradients are held, and queries are answered in parts.
    Scores differ by rounding alone. What a curvature keeps (the factors of `EKFAC()`, the matrix of `Direct()`) comes
    on top.

    Raises ValueError unless `count` is a whole number above 0.

    >>> with memory_limit(500_000_000):
    ...     pass
    """
    token = _limit.set(require_count("bytes", count))
    try:
        yield
    finally:
        _limit.reset(token)


def numbers_within(most: int, share: float) -> int:
    """How many numbers of four bytes may be held: `most`, or this share of the limit, if that is less."""
    limit = _limit.get()
    return most if limit is None else max(1, min(most, int(share * limit / BYTES_OF_A_NUMBER)))


def queries_within(bytes_of_a_query: float, share: float) -> int | None:
    """How many queries have room in this share of the limit; None without a limit."""
    limit = _limit.get()
    return None if limit is None else max(1, int(share * limit / max(bytes_of_a_query, 1.0)))

"""Counts: a long range as consecutive slices of bounded size, and the check of a number of things."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from upweight.core.forecast import counted


def blocks(count: int, size: int, start: int = 0) -> Iterator[slice]:
    """Consecutive slices of `size` positions that cover range(start, count); the last one may be shorter.

    Each is a step of the running job (see `core/forecast.py`).

    >>> list(blocks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    firsts = range(start, count, size)
    return counted((slice(first, min(first + size, count)) for first in firsts), len(firsts))


def require_count(name: str, value: Any, least: int = 1) -> int:
    """The value as an int. Raises ValueError for anything but a whole number of at least `least`."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or value < least:
        raise ValueError(f"expected {name} of at least {least}, got {value!r}; pass a whole number")
    return int(value)

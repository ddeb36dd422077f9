"""Looks: data are looked through for changes in place once in every call of the library, not at every step of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
# What was seen in the call that is being made: the address of some data → the data, so that it stays theirs, and their
# checksum. None outside of calls.
SEEN_CHECKSUMS: ContextVar[dict[int, tuple[Any, int | None]] | None] = ContextVar("seen_checksums", default=None)


@contextmanager
def one_change_check() -> Iterator[None]:
    """For the length of one call every data set is looked through once for changes in place, not at every step."""
    if SEEN_CHECKSUMS.get() is not None:
        yield
        return
    token = SEEN_CHECKSUMS.set({})
    try:
        yield
    finally:
        SEEN_CHECKSUMS.reset(token)


def check_changes_once(function: Callable[P, R]) -> Callable[P, R]:
    """The function, inside `one_change_check`."""

    @wraps(function)
    def looking(*given: P.args, **named: P.kwargs) -> R:
        with one_change_check():
            return function(*given, **named)

    return looking

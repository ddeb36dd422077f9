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
LOOKS: ContextVar[dict[int, tuple[Any, int | None]] | None] = ContextVar("looks", default=None)


@contextmanager
def one_look() -> Iterator[None]:
    """For the length of one call every data set is looked through once for changes in place, not at every step."""
    if LOOKS.get() is not None:
        yield
        return
    token = LOOKS.set({})
    try:
        yield
    finally:
        LOOKS.reset(token)


def looked_once(function: Callable[P, R]) -> Callable[P, R]:
    """The function, inside `one_look`."""

    @wraps(function)
    def looking(*given: P.args, **named: P.kwargs) -> R:
        with one_look():
            return function(*given, **named)

    return looking

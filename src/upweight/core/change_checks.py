"""Data are checked for changes in place once per call of the library, and not again at every step of the call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

# The checksums computed in the current call: id of the data → (the data, which keeps the id taken; their checksum).
# None outside of calls.
SEEN_CHECKSUMS: ContextVar[dict[int, tuple[Any, int | None]] | None] = ContextVar("seen_checksums", default=None)


@contextmanager
def one_change_check() -> Iterator[None]:
    """A context in which the checksum of every data set is computed once and then remembered."""
    if SEEN_CHECKSUMS.get() is not None:
        yield
        return
    token = SEEN_CHECKSUMS.set({})
    try:
        yield
    finally:
        SEEN_CHECKSUMS.reset(token)

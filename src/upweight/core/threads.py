"""A limit on the threads of linear algebra."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_controllers: dict[int, Any] = {}  # number of imported modules → the libraries that were loaded then


@contextmanager
def limit_threads(threads: int) -> Iterator[None]:
    """A context in which linear algebra uses this many threads: for parallel workers, and for small matrices.

    On a busy machine, threads that wait for each other make products of small matrices ten times slower. The order of
    a sum depends on the number of threads, and with it the last bits of a training.
    """
    torch: Any = sys.modules.get("torch")
    # The MKL inside torch counts its threads itself, out of reach of limits from outside.
    before = torch.get_num_threads() if hasattr(torch, "get_num_threads") else None
    with _limit_libraries(threads):
        try:
            if before not in (None, threads):
                torch.set_num_threads(threads)
            yield
        finally:
            if before not in (None, threads):
                torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """A context in which linear algebra uses one thread."""
    with limit_threads(1):
        yield


@contextmanager
def _limit_libraries(threads: int) -> Iterator[None]:
    try:
        import threadpoolctl
    except ImportError:
        yield
        return
    if (
        len(sys.modules) not in _controllers
    ):  # a library may have been loaded since; looking for them takes milliseconds
        _controllers.clear()
        _controllers[len(sys.modules)] = threadpoolctl.ThreadpoolController()
    with _controllers[len(sys.modules)].limit(limits=threads):
        yield

"""A limit on the threads of linear algebra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """A context in which linear algebra uses one thread: for parallel workers, and for small matrices.

    The OpenMP threads of torch do not survive a fork, so a forked worker that waits for them waits for ever. On a busy
    machine, threads that wait for each other make products of small matrices ten times slower.
    """
    try:
        import threadpoolctl
    except ImportError:
        yield
        return
    with threadpoolctl.threadpool_limits(1):
        yield

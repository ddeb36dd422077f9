"""Threads: a limit on those that linear algebra uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra on one thread: for workers side by side, and for matrices too small to be worth waking others for.

    OpenMP's threads, which torch computes with, do not outlive a fork: a worker that waits for them waits for ever.

    On a machine that is busy with something else, threads that wait for each other cost tenfold on small matrices.
    """
    try:
        import threadpoolctl
    except ImportError:
        yield
        return
    with threadpoolctl.threadpool_limits(1):
        yield

"""The time of calls without steps, such as large matrix products, from that of small ones."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from upweight.core.forecast import Forecast, running_job

LEAST_FLOPS = 1e10  # operations from which the time of a call is forecast
PRODUCT_WIDTH = 512  # of the matrices whose product is timed
TIMED_CALLS = 3  # of such a product


def expect_products(flops: float, held: float) -> None:
    """The running job will take this many flops of matrix products, and hold this many bytes, in one call.

    Such a call has no steps from which its time is seen: the rate of a small product is measured instead.
    """
    job = running_job()
    if job is None or job.is_announced or flops < LEAST_FLOPS:
        return
    matrix = np.ones((PRODUCT_WIDTH, PRODUCT_WIDTH))
    _ = matrix @ matrix  # the first call starts threads
    seconds = flops * least_seconds(lambda: matrix @ matrix) / (2 * PRODUCT_WIDTH**3)
    job.forecast += Forecast({"matrix products": seconds}, held)
    job.announce()


def least_seconds(work: Callable[[], object]) -> float:
    """The least seconds of a few calls: those of the one that other processes disturbed least."""
    seconds = []
    for _ in range(TIMED_CALLS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return max(min(seconds), 1e-6)

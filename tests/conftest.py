"""Settings of all tests: one thread for linear algebra, and a profile for hypothesis."""

import gc
import io
import logging
import os
import signal
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

# The matrices of the tests are small and test workers run in parallel, so threads would mostly wait for each other.
# These variables are set before a test module imports numpy or torch, which read them once.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

GOLDEN_RATIO = (5**0.5 - 1) / 2  # of its multiples, any number in a row are spread evenly between whole numbers

# A shell's background jobs ignore interrupts, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On the server every run draws the same examples, so a failing test means that the code changed. On a developer's
# machine every run draws new ones. How long it takes to draw them says how busy the machine is.
settings.register_profile(
    "upweight",
    deadline=None,
    max_examples=60,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("upweight")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the cases of a sweep slow but for about one in k of them, which are spread evenly over its parameters."""
    cases = Counter()
    for item in items:
        sweep = item.get_closest_marker("sweep")
        if sweep is not None:
            test = item.parent, item.originalname
            if cases[test] * GOLDEN_RATIO % 1 >= 1 / sweep.args[0]:
                item.add_marker(pytest.mark.slow)
            cases[test] += 1


def pytest_collection_finish():
    """Libraries and tests stay to the end: garbage is not looked for among them, and less often (3 % of the time)."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture
def logged():
    """What the package logs during a test, from warnings on.

    In place of pytest's `caplog`, whose plugin gives the sixty loggers of torch a handler in every phase of every test:
    3 % of the time of all tests.
    """
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    logging.getLogger("upweight").addHandler(handler)
    yield text
    logging.getLogger("upweight").removeHandler(handler)

import os
import time

import pytest

from support.worker_tasks import sleep
from upweight.engines import watchdog
from upweight.engines.process_pool import run_in_processes
from upweight.engines.watchdog import Watchdog


def test_a_worker_that_is_silent_for_far_longer_than_others_trained_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setattr(watchdog, "SILENT_SECONDS", 1.0)
    with pytest.raises(
        RuntimeError, match=r"task 2 hangs: its worker \(process \d+\) has run .* while [23] others took"
    ):
        list(run_in_processes(sleep, None, [0, 0, 600, 0], 2))


@pytest.mark.parametrize(
    ("longest", "hours", "is_busy", "hangs"),
    [
        (None, 100, False, False),  # nothing to compare with
        (0.1, 0.01, False, False),  # 36 s
        (0.1, 0.02, False, True),  # 72 s
        (0.1, 0.02, True, False),
        (0.1, 1, True, True),
        (3600, 20, False, False),
        (3600, 40, False, True),
        (3600, 200, True, False),
    ],
)
def test_the_limit_is_many_times_the_longest_training_and_larger_for_busy_workers(
    longest, hours, is_busy, hangs, monkeypatch
):
    now = [1000.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(watchdog, "processor_seconds", lambda process: now[0] if is_busy else 3.0)
    dog = Watchdog()
    if longest is not None:
        dog.end(longest)
    assert not dog.hangs(1, started=1000.0)
    now[0] += hours * 3600
    assert dog.hangs(1, started=1000.0) == hangs


def test_the_processor_time_of_this_process_grows():
    before = watchdog.processor_seconds(os.getpid())
    while time.process_time() < before + 0.1:
        pass
    assert watchdog.processor_seconds(os.getpid()) > before

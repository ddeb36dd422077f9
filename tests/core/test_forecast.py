"""What long work says before it starts and while it continues, and that short work says nothing."""

from __future__ import annotations

import pytest

from upweight.core import forecast
from upweight.core.forecast import Forecast, StepClock, TaskClock, announced, watched_slices


@pytest.fixture
def clock(monkeypatch):
    """Seconds that tests set."""
    now = [0.0]
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: now[0])
    return now


def test_forecasts_add_their_times_and_take_the_larger_memory():
    both = Forecast({"factors": 2.0}, 5e6) + Forecast({"factors": 1.0, "scores": 100.0}, 2e9)
    assert both == Forecast({"factors": 3.0, "scores": 100.0}, 2e9)
    assert str(both) == "about 2 min and 2.0 GB of memory (scores 2 min, factors 3 s)"


def test_long_work_is_announced_once_with_its_progress_and_the_time_left(clock, capsys):
    with announced("Influence.fit", Forecast({"factors": 60.0})), announced("a part of it", Forecast({"x": 99.0})):
        for where in watched_slices([slice(0, 30), slice(30, 60), slice(60, 100)], "gradients", 100):
            clock[0] += 12.0 if where.start == 0 else 2.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Influence.fit: about 60 s") and len(lines) == 2
    assert lines[1] == "  … gradients: 30 of 100 (2 a second), about 28 s left, about 48 s in all"


def test_short_work_and_short_loops_say_nothing(clock, capsys):
    with announced("short", Forecast({"factors": 9.0})):
        for _ in watched_slices([slice(0, 50), slice(50, 100)], "gradients", 100):
            clock[0] += 4.0
        clock[0] += 50.0
        steps = StepClock("steps", 10)
        clock[0] += 1.0
        steps.report(5)  # a second is left of this loop
    for _ in watched_slices([slice(0, 50), slice(50, 100)], "outside of a job", 100):
        clock[0] += 40.0
    assert capsys.readouterr().err == ""


def test_many_equal_tasks_are_forecast_after_the_first(clock, capsys):
    tasks = TaskClock("retrainings", 100)
    clock[0] += 2.0
    tasks.finished()
    clock[0] += 20.0
    tasks.finished()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "100 retrainings: about 3 min (after the first one)" and "retrainings: 2 of 100" in lines[1]
    few = TaskClock("retrainings", 3)
    clock[0] += 1.0
    few.finished()
    assert capsys.readouterr().err == ""

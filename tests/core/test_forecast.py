"""What long work says before it starts and while it continues, and that short work says nothing."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest

from upweight.core import forecast, resident_memory
from upweight.core.blocks import blocks
from upweight.core.forecast import Forecast, StepClock, announced, counted, expect_results, watched_slices
from upweight.core.task_clock import TaskClock


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
    with announced("short", Forecast({"factors": 4.9})):
        for _ in watched_slices([slice(0, 50), slice(50, 100)], "gradients", 100):
            clock[0] += 2.0
        clock[0] += 50.0
        steps = StepClock("steps", 10)
        clock[0] += 1.0
        steps.report(5)  # a second is left of this loop
    for _ in watched_slices([slice(0, 50), slice(50, 100)], "outside of a job", 100):
        clock[0] += 40.0
    assert capsys.readouterr().err == ""


def test_many_equal_tasks_are_forecast_from_those_after_the_first(clock, capsys):
    tasks = TaskClock("retrainings", 100)
    clock[0] += 5.0  # a process starts
    tasks.finished()
    assert capsys.readouterr().err == ""
    clock[0] += 2.0
    tasks.finished()
    clock[0] += 20.0
    tasks.finished()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "100 retrainings: about 3 min (after the first 2)" and "retrainings: 3 of 100" in lines[1]
    few = TaskClock("retrainings", 3)
    for _ in range(3):
        clock[0] += 1.0
        few.finished()
    alone = TaskClock("retrainings", 1)
    clock[0] += 30.0
    alone.finished()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("processes", [2, 4])
def test_tasks_that_end_nearly_together_do_not_pass_for_fast_ones(clock, capsys, processes):
    tasks = TaskClock("retrainings", 100)
    clock[0] += 5.0
    for number in range(3 * processes):
        clock[0] += 2.0 if number and number % processes == 0 else 0.01
        tasks.finished()
    (line,) = capsys.readouterr().err.splitlines()
    seconds = {2: 100.0, 4: 50.0}[processes]
    told = float(re.findall(r"about (\d+) (?:s|min)", line)[0]) * (60 if " min" in line else 1)
    assert seconds / 2 <= told <= 2 * seconds


@pytest.mark.parametrize(("first", "step", "steps"), [(1.2, 0.02, 20), (3.0, 0.05, 35), (9.0, 0.01, 100)])
def test_what_a_first_step_loads_does_not_pass_for_the_pace(clock, capsys, first, step, steps):
    with announced("LeafRefit.fit", None):
        for number in blocks(steps, 1):
            clock[0] += step if number.start else first
    tasks = TaskClock("retrainings", steps)
    for number in range(steps):
        clock[0] += step if number else first
        tasks.finished()
    assert capsys.readouterr().err == ""


LONG_LOOPS = [
    (step, steps, loads)
    for step, steps, loads in product([0.3, 1.0, 3.0, 12.0], [2, 3, 5, 30, 400], [0.0, 2.0])
    if step * steps + loads >= 10.0 and step * (steps - 1) >= 3.0
]


@pytest.mark.parametrize(("step", "steps", "loads"), LONG_LOOPS)
def test_the_price_of_long_work_is_within_a_factor_of_two_whatever_the_first_step_loads(
    clock, capsys, step, steps, loads
):
    with announced("SOURCE.fit", None):
        for number in blocks(steps, 1):
            clock[0] += step if number.start else step + loads
    seconds = step * steps + loads
    lines = capsys.readouterr().err.splitlines()
    amount, unit = re.findall(r"about ([\d.]+) (s|min|h)", lines[0])[0]
    told = float(amount) * {"s": 1, "min": 60, "h": 3600}[unit]
    assert seconds / 2 <= told <= 2 * seconds


def test_a_price_that_the_first_step_made_too_high_gives_way_to_the_pace(clock, capsys):
    with announced("fit", None):
        for number in blocks(100, 1):
            clock[0] += 0.2 if number.start else 12.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("fit: about 20 min") and "(from the first 1.0 %)" in lines[0]
    assert re.fullmatch(r"  … fit: 4[1-3] %, about 1[89] s left", lines[1])


def test_work_without_a_forecast_is_forecast_from_its_first_steps(clock, capsys):
    with announced("LeafRefit.fit", None):
        for _ in blocks(100, 1):
            clock[0] += 0.4
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"LeafRefit.fit: about 40 s( and .* of memory)? \(from the first 4.0 %\)", lines[0])
    assert lines[1] == "  … LeafRefit.fit: 25 %, about 30 s left" and len(lines) < 6


def test_steps_of_inner_loops_are_parts_of_those_of_outer_ones(clock, capsys):
    with announced("TracIn, 5 queries", None):
        for _ in counted(range(4), 4):
            for _ in blocks(100, 10):
                clock[0] += 0.5
            list(blocks(50, 1))  # positions in one step: no work
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("TracIn, 5 queries: about 20 s") and "(from the first 7.5 %)" in lines[0]
    assert all("TracIn" in line for line in lines)


def test_a_loop_that_is_one_of_several_does_not_pass_for_the_whole(clock, capsys):
    with announced("Influence.fit", Forecast({"Hessian": 180.0, "factors": 20.0})):
        for _ in range(4):
            for _ in blocks(100, 1):
                clock[0] += 0.5
    lines = capsys.readouterr().err.splitlines()[1:]
    shares = [int(re.findall(r"(\d+) %", line)[0]) for line in lines]
    assert len(lines) > 3 and shares == sorted(shares)
    assert lines[0] == "  … Influence.fit: 5 %, about 3 min left"


def test_a_long_first_step_is_enough_and_loops_that_end_early_are_forgotten(clock, capsys):
    with announced("fit", None):
        for where in blocks(100, 10):
            if where.start:
                break
        for _ in counted("ab", 2):
            clock[0] += 30.0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("fit: about 60 s") and "(from the first 50.0 %)" in lines[0]


def test_short_loops_say_nothing_and_those_outside_of_a_job_are_not_looked_at(clock, capsys):
    with announced("fit", Forecast({"factors": 2.0})):
        for _ in blocks(100, 10):
            clock[0] += 0.4
    for _ in blocks(100, 10):
        clock[0] += 9.0
    assert capsys.readouterr().err == ""


def memory_of(monkeypatch, held, peak):
    monkeypatch.setattr(resident_memory, "resident_bytes", lambda: held[0])
    monkeypatch.setattr(resident_memory, "peak_resident_bytes", lambda: peak[0])


def test_memory_is_what_the_work_holds_and_what_its_results_will_take(clock, capsys, monkeypatch):
    held, peak = [5e6], [900e6]  # more than all that follows: of what was done before
    memory_of(monkeypatch, held, peak)
    with announced("fit", Forecast({}, 100e6)):
        expect_results(300e6)
        for _ in blocks(100, 1):
            clock[0], held[0] = clock[0] + 1.0, held[0] + 4e6
    line = capsys.readouterr().err.splitlines()[0]
    assert line.startswith("fit: about 100 s and 400.0 MB of memory") or line.startswith(
        "fit: about 2 min and 400.0 MB"
    )
    held[0] = None
    with announced("fit", None):
        for _ in blocks(100, 1):
            clock[0] += 1.0
    assert "memory" not in capsys.readouterr().err.splitlines()[0]


def test_memory_that_is_held_within_a_step_only_is_said_as_well(clock, capsys, monkeypatch):
    held, peak = [5e6], [6e6]
    memory_of(monkeypatch, held, peak)
    with announced("fit", None):
        for _ in blocks(100, 1):
            clock[0], peak[0] = clock[0] + 1.0, 85e6
    assert "and 80.0 MB of memory" in capsys.readouterr().err.splitlines()[0]


def test_what_a_forecast_holds_already_is_not_counted_twice(clock, capsys, monkeypatch):
    held, peak = [5e6], [5e6]
    memory_of(monkeypatch, held, peak)
    with announced("fit", Forecast({"passes": 5.0}, 100e6)):
        for _ in blocks(100, 1):
            clock[0], held[0] = clock[0] + 1.0, 95e6
    assert "and 100.0 MB of memory" in capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize("shares", [(0.9, 0.1), (0.1, 0.9), (0.3, 0.3, 0.4)], ids=str)
def test_loops_that_follow_each_other_in_a_step_do_not_each_pass_for_all_of_it(clock, capsys, shares):
    with announced("Influence, self-influence", None):
        for _ in blocks(120, 1):
            for share in shares:
                for _ in blocks(4, 1):
                    clock[0] += 0.25 * share / 4
    amount = re.findall(r"about (\d+) s", capsys.readouterr().err.splitlines()[0])[0]
    assert 25 <= float(amount) <= 35


def test_retrainings_inside_of_announced_work_say_nothing_of_their_own(clock, capsys):
    with announced("LeaveOneOut.fit", Forecast({"retrainings": 60.0})):
        tasks = TaskClock("retrainings", 100)
        clock[0] += 2.0
        tasks.finished(np.zeros(3))
    assert len(capsys.readouterr().err.splitlines()) == 1
    with announced("LeaveOneOut.fit", None):
        tasks = TaskClock("retrainings", 100)
        for _ in range(3):
            clock[0] += 2.0
            tasks.finished(np.zeros(250))
    assert capsys.readouterr().err == "100 retrainings: about 3 min and 200.0 kB of results (after the first 2)\n"


@pytest.mark.parametrize("seconds", [5.1, 9.9])
def test_work_that_may_take_ten_seconds_is_announced_although_less_is_forecast(clock, capsys, seconds):
    with announced("fit", Forecast({"factors": seconds})):
        pass
    assert capsys.readouterr().err.startswith(f"fit: about {seconds:.0f} s")
    with announced("by its loop", None):
        for _ in counted(range(100), 100):
            clock[0] += seconds / 100
    assert capsys.readouterr().err.startswith(f"by its loop: about {seconds:.0f} s")


@pytest.mark.parametrize("slow", [1, 2, 4])
def test_early_steps_that_write_to_new_memory_do_not_pass_for_the_pace(clock, capsys, slow):
    with announced("SOURCE", None):
        for number in counted(range(240), 240):
            clock[0] += 0.8 if number == 0 else (0.15 if number <= slow else 0.05)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("  …")]
    said = float(re.search(r"about (\d+) s", line)[1])
    assert 0.5 <= said / clock[0] <= 2, line


def test_a_loop_corrects_what_it_said_itself(clock, capsys):
    with announced("LESS", None):
        for number in counted(range(100), 100):
            clock[0] += 2.0 if number < 3 else 0.4
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("LESS: about 3 min")
    later = [re.search(r"(\d+) %, about (\d+) s left", line) for line in lines[1:]]
    assert later and all(match is not None for match in later)
    assert int(later[-1][2]) <= 0.5 * clock[0] and int(later[-1][1]) >= 50

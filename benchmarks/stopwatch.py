"""Stopwatch: several ways to do one thing, timed in turn so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Seconds of every repetition: of this process's own processors, and on the wall."""

    cpu: list[float]
    wall: list[float]

    @property
    def typical(self) -> tuple[float, float]:
        """Medians (cpu, wall)."""
        return median(self.cpu), median(self.wall)


def time_in_turn(ways: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, Timing]:
    """Every way once per round, for so many rounds."""
    timings = {name: Timing([], []) for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            cpu, wall = time.process_time(), time.perf_counter()
            way()
            timings[name].cpu.append(time.process_time() - cpu)
            timings[name].wall.append(time.perf_counter() - wall)
    return timings


def ratio(above: Timing, below: Timing) -> float:
    """Median over the rounds of the ratio of processor seconds."""
    return median(a / b for a, b in zip(above.cpu, below.cpu, strict=True))

"""The watchdog: detects a worker that is silent for far longer than the other trainings took."""

from __future__ import annotations

import os
import time
from pathlib import Path

PATIENCE = 30.0  # a silent training may take this many times as long as the longest other one
SILENT_SECONDS = 60.0  # a silent training may always take this long
BUSY_FACTOR = 20.0  # the factor of both for a training that uses the processor
LOOK_SECONDS = 1.0  # between two looks at the processor time of a process


class Watchdog:
    """The progress of the trainings of one run.

    Attributes:
        finished: the number of trainings that ended.
        longest: how long the longest of them took, in seconds.
    """

    def __init__(self) -> None:
        self.finished, self.longest = 0, 0.0
        self._progress: dict[int, tuple[float, float]] = {}  # process → (its processor seconds, when they last changed)
        self._looked: dict[int, float] = {}  # process → when its processor seconds were last read

    def end(self, seconds: float) -> None:
        """A training ended after this time."""
        self.finished, self.longest = self.finished + 1, max(self.longest, seconds)

    def hangs(self, process: int, started: float) -> bool:
        """Whether the training that this process started at that (monotonic) time is taken to hang."""
        now = time.monotonic()
        if not self.finished or now - self._looked.get(process, -LOOK_SECONDS) < LOOK_SECONDS:
            return False
        self._looked[process], used = now, processor_seconds(process)
        limit = max(SILENT_SECONDS, PATIENCE * self.longest)
        before, since = self._progress.get(process, (None, started))
        if used != before:
            self._progress[process] = used, now
            since = now
        return now - max(since, started) > limit or now - started > BUSY_FACTOR * limit


def processor_seconds(process: int) -> float:
    """The processor time of a process; the present time where the system does not say, as if it were always busy."""
    try:
        user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    except (OSError, ValueError):
        return time.monotonic()
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

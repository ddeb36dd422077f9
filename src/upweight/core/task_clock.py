"""Lines about many equal tasks, such as retrainings: how long all of them will take, and how many are finished."""

from __future__ import annotations

import time
from typing import Any

from upweight.core.amounts_in_words import bytes_in_words, in_words
from upweight.core.announcements import announcements
from upweight.core.forecast import ANNOUNCED_SECONDS, HALF, LEAST_LEFT, LONG_SECONDS, Forecast, Job, running_job
from upweight.core.loop_pace import is_pace


class TaskClock:
    """Says after the first of many equal tasks how long all will take, and then how many are finished."""

    def __init__(self, name: str, total: int) -> None:
        self._job = Job(f"{total:,} {name}", Forecast())
        self._name, self._total, self._done = name, total, 0
        self._first = 0.0  # when the first task was finished

    def finished(self, result: Any = None) -> None:
        """Report that one more task is finished, with this result."""
        self._done += 1
        now, job = time.perf_counter(), running_job()
        if self._done == 1:
            self._first = now
        if job is not None and job.is_announced:  # its loops say how far it is
            return
        seconds = 0.0 if self._job.is_announced else self._expected_seconds(now)
        if seconds >= ANNOUNCED_SECONDS and seconds - (now - self._job.start) >= LEAST_LEFT:
            self._job.is_announced = True
            if job is not None:
                job.is_announced = True
            size = getattr(result, "nbytes", 0) * self._total
            memory = f" and {bytes_in_words(size)} of results" if size else ""
            after = "the first one" if self._done == 1 else f"the first {self._done:,}"
            announcements.info("%s: about %s%s (after %s)", self._job.name, in_words(seconds), memory, after)
        self._job.report(self._name, self._done, self._total, self._job.start)

    def _expected_seconds(self, now: float) -> float:
        """Seconds of all tasks; 0 as long as that is unknown, as the first may have started processes."""
        elapsed, following = now - self._job.start, now - self._first
        if self._done > 1 and is_pace(following, elapsed - following):
            return elapsed + following / (self._done - 1) * (self._total - self._done)
        if self._done == 1 and (self._total * HALF <= 1 or elapsed >= LONG_SECONDS):
            return elapsed * self._total
        return 0.0

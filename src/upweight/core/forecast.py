"""Forecasts of long computations, and lines about them: before they start, and while they run."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

LONG_SECONDS = 10.0  # shorter work is not announced
LEAST_LEFT = 3.0  # seconds of a loop that are worth a line
LINE_SPACING = 1.5  # times the seconds that have passed, until the next line about work that continues

T = TypeVar("T")


@dataclass(frozen=True)
class Forecast:
    """An estimate of time and memory. `str()` has it in a sentence.

    Attributes:
        parts: step → seconds.
        bytes: of memory beyond the model and the data, at the most demanding step.
    """

    parts: Mapping[str, float] = field(default_factory=dict)
    bytes: float = 0.0

    @property
    def seconds(self) -> float:
        """The seconds of all steps together."""
        return sum(self.parts.values())

    def __add__(self, other: Forecast) -> Forecast:
        """The forecast of one after the other."""
        parts = dict(self.parts)
        for name, seconds in other.parts.items():
            parts[name] = parts.get(name, 0.0) + seconds
        return Forecast(parts, max(self.bytes, other.bytes))

    def __str__(self) -> str:
        longest = sorted(self.parts.items(), key=lambda part: -part[1])[:3]
        steps = ", ".join(f"{name} {in_words(seconds)}" for name, seconds in longest)
        return f"about {in_words(self.seconds)} and {bytes_in_words(self.bytes)} of memory ({steps})"


class _OnStandardError(logging.StreamHandler[Any]):
    """Writes to what standard error is at that moment: notebooks and progress bars replace it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        """Standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        pass


announcements = logging.getLogger("upweight.forecast")  # raise its level to silence it
announcements.setLevel(logging.INFO)
announcements.propagate = False
announcements.addHandler(_OnStandardError())


@dataclass
class Job:
    """Running work: its name, its forecast, and when the next line is due."""

    name: str
    forecast: Forecast
    start: float
    next_line: float = LONG_SECONDS

    def report(self, step: str, done: int, total: int, step_start: float) -> None:
        """Say how far a step is, if the last line is old enough."""
        now = time.perf_counter()
        elapsed = now - self.start
        if elapsed < self.next_line or not 0 < done < total:
            return
        left = (now - step_start) / done * (total - done)
        if left < LEAST_LEFT:  # a small part of something else
            return
        self.next_line = LINE_SPACING * elapsed
        whole = max(self.forecast.seconds - elapsed, left)
        rest = f", about {in_words(whole)} in all" if whole > LINE_SPACING * left else ""
        announcements.info(
            "  … %s: %s of %s (%.0f a second), about %s left%s",
            *(step, f"{done:,}", f"{total:,}", done / max(now - step_start, 1e-9), in_words(left), rest),
        )


_job: ContextVar[Job | None] = ContextVar("job", default=None)


@contextmanager
def announced(name: str, forecast: Forecast | None) -> Iterator[None]:
    """Say what the work inside will take, if that is long, and let `watched` loops say how far they are."""
    if _job.get() is not None:  # a part of something larger
        yield
        return
    known = forecast or Forecast()
    if known.seconds >= LONG_SECONDS:
        announcements.info("%s: %s", name, known)
    token = _job.set(Job(name, known, time.perf_counter()))
    try:
        yield
    finally:
        _job.reset(token)


def watched(steps: Iterable[tuple[slice, T]], name: str, total: int) -> Iterator[tuple[slice, T]]:
    """The same pairs (which positions, …); a running job reports how many of `total` are finished."""
    start = time.perf_counter()
    for where, item in steps:
        yield where, item
        job = _job.get()
        if job is not None:
            job.report(name, where.stop, total, start)


def watched_slices(steps: Iterable[slice], name: str, total: int) -> Iterator[slice]:
    """The same slices; a running job reports how many of `total` are finished."""
    return (where for where, _ in watched(((step, None) for step in steps), name, total))


class StepClock:
    """Reports how many steps of a loop are finished, if it is part of a running job."""

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total, self._start = name, total, time.perf_counter()

    def report(self, done: int) -> None:
        """Report that this many steps are finished."""
        job = _job.get()
        if job is not None:
            job.report(self._name, done, self._total, self._start)


class TaskClock:
    """Says after the first of many equal tasks how long all of them will take, and then how many are finished."""

    def __init__(self, name: str, total: int) -> None:
        self._job = Job(f"{total:,} {name}", Forecast(), time.perf_counter())
        self._name, self._total, self._done = name, total, 0

    def finished(self) -> None:
        """Report that one more task is finished."""
        self._done += 1
        elapsed = time.perf_counter() - self._job.start
        if self._done == 1 and elapsed * self._total >= LONG_SECONDS:
            announcements.info("%s: about %s (after the first one)", self._job.name, in_words(elapsed * self._total))
        self._job.report(self._name, self._done, self._total, self._job.start)


def is_announced() -> bool:
    """Whether this code runs as a part of announced work."""
    return _job.get() is not None


def in_words(seconds: float) -> str:
    """A time: `40 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def bytes_in_words(count: float) -> str:
    """A size: `512 bytes`, `3.2 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    raise AssertionError

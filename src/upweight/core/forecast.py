"""Forecasts of long computations, and lines about them: before they start, and while they run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from upweight.core.amounts_in_words import bytes_in_words, in_words
from upweight.core.announcements import announcements
from upweight.core.loop_pace import Look, Loop, LoopPace
from upweight.core.resident_memory import MemoryGrowth

LONG_SECONDS = 10.0  # work of so long is announced
ANNOUNCED_SECONDS = 5.0  # that are forecast for it at least: the forecast may be half of what it takes
LEAST_LEFT = 3.0  # seconds of a loop that are worth a line
HALF = 0.5  # share of a loop after which all of it takes at most twice as long as what is finished
LEAST_PARTS = 1.0  # seconds of parts of a first step that say how long it takes: parts of other loops may follow
LOOK_SPACING = 0.05  # seconds between two looks at how far a job is
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


class Job:
    """Running work: its name, its forecast, its loops, and when the next line is due.

    A job without a forecast of its own is forecast from its first steps: from the second one on, because the first may
    load libraries. Loops are nested: a step of an inner loop is a part of a step of the outer one. As several inner
    loops may follow each other in one step, parts count until the outermost loop has finished a step.
    """

    def __init__(self, name: str, forecast: Forecast) -> None:
        self.name, self.forecast, self.start = name, forecast, time.perf_counter()
        self.next_line, self.next_look, self.is_announced = LONG_SECONDS, self.start + LOOK_SPACING, False
        self._whole = 0.0  # seconds that were announced,
        self._whole_by: Loop | None = None  # by this loop
        self._loops, self._growth = list[Loop](), MemoryGrowth()
        self._pace: LoopPace | None = None

    def announce(self) -> None:
        """Say what the work will take, if that is long."""
        if self.forecast.seconds >= ANNOUNCED_SECONDS:
            self.is_announced, self._whole = True, self.forecast.seconds
            announcements.info("%s: %s", self.name, self.forecast)

    def enter(self, total: int) -> Loop:
        """A loop of `total` steps starts, inside of those that go on."""
        loop = Loop(total)
        self._loops.append(loop)
        return loop

    def leave(self, loop: Loop) -> None:
        """The loop ends."""
        self._loops.remove(loop)

    def look(self, loop: Loop) -> None:
        """A step of a loop is finished: say what the work will take or how far it is, if that is due."""
        now, outermost = time.perf_counter(), self._loops[0]
        is_part, pace = loop is not outermost, self._pace
        is_first_step = not is_part and (pace is None or pace.is_part)
        if (now < self.next_look and not is_first_step) or (is_part and outermost.done and not self.is_announced):
            return
        self.next_look, share = now + LOOK_SPACING, self._share()
        if pace is None or pace.outermost is not outermost or (pace.is_part and not is_part):
            self._pace = pace = LoopPace(outermost, is_part, Look(now, share))
        pace.add(Look(now, share))
        elapsed = now - outermost.start
        if is_part and not outermost.done and elapsed < max(LEAST_PARTS, self.forecast.seconds):
            return
        is_first = share <= pace.first.share
        if not is_first and pace.is_known(now):
            left = pace.seconds_left(now, share)
        elif is_first and (share >= HALF or elapsed >= LONG_SECONDS):
            left = elapsed * (1 - share) / share
        else:
            return
        if left >= LEAST_LEFT:
            self._say(now, left, share, is_first)

    def _say(self, now: float, left: float, share: float, is_first: bool) -> None:
        """Say what the work takes, if this share of its outermost loop is finished and the rest takes so long."""
        whole, outermost = now - self.start + left, self._loops[0]
        if not self.is_announced and whole >= ANNOUNCED_SECONDS:
            self.is_announced, self._whole, self._whole_by = True, 0.0 if is_first else whole, outermost
            announcements.info(
                "%s: about %s%s (from the first %.1f %%)", self.name, in_words(whole), self._memory(share), 100 * share
            )
        elif self.is_announced and now - self.start >= self.next_line:
            self.next_line = LINE_SPACING * (now - self.start)
            if self._whole_by is outermost:  # which is now known better
                self._whole = whole
            whole = max(whole, self._whole)  # this loop may be one of several
            done, left = 100 * (now - self.start) / whole, whole - (now - self.start)
            announcements.info("  … %s: %.0f %%, about %s left", self.name, done, in_words(left))

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

    def _share(self) -> float:
        """What is finished of the outermost loop, between 0 and 1."""
        share, part = 0.0, 1.0
        for loop in self._loops:
            part /= loop.total
            share += part * loop.done
        return share

    def _memory(self, share: float) -> str:
        """The memory that the work takes, as a part of a sentence: what it holds now, and its results."""
        growth = self._growth.bytes
        if growth is None:
            return ""
        expected = self.forecast.bytes
        size = max(growth, expected) if self.forecast.parts else growth + (1 - share) * expected
        return f" and {bytes_in_words(size)} of memory"


_job: ContextVar[Job | None] = ContextVar("job", default=None)


@contextmanager
def announced(name: str, forecast: Forecast | None) -> Iterator[None]:
    """Say what the work inside will take, if that is long, and let its loops say how far they are.

    Without a forecast, or after one that is too short, the loops inside say it after their first steps. `bytes` of a
    forecast without parts are those of the results.
    """
    if _job.get() is not None:  # a part of something larger
        yield
        return
    job = Job(name, forecast or Forecast())
    job.announce()
    token = _job.set(job)
    try:
        yield
    finally:
        _job.reset(token)


def expect_results(count: float) -> None:
    """Tell the forecast of the running job that it will hold this many bytes of results."""
    job = _job.get()
    if job is not None:
        job.forecast += Forecast({}, job.forecast.bytes + count)


def counted(steps: Iterable[T], total: int) -> Iterator[T]:
    """The same items, as `total` equal steps of the running job."""
    with equal_steps(total) as finished:
        for item in steps:
            yield item
            finished()


@contextmanager
def equal_steps(total: int) -> Iterator[Callable[[], None]]:
    """A context of work in `total` steps that take about as long; call what it gives after each of them."""
    job = _job.get()
    if job is None or total < 2:
        yield _no_step
        return
    loop = job.enter(total)

    def finished() -> None:
        loop.done += 1
        job.look(loop)

    try:
        yield finished
    finally:
        job.leave(loop)


def _no_step() -> None:
    """A step of no job."""


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
    slices = list(steps)  # before the loop starts: those of `blocks` are a loop themselves
    pairs = ((where, None) for where in counted(slices, len(slices)))
    return (where for where, _ in watched(pairs, name, total))


class StepClock:
    """Reports how many steps of a loop are finished, if it is part of a running job."""

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total, self._start = name, total, time.perf_counter()

    def report(self, done: int) -> None:
        """Report that this many steps are finished."""
        job = _job.get()
        if job is not None:
            job.report(self._name, done, self._total, self._start)


def running_job() -> Job | None:
    """The announced work that this code is a part of."""
    return _job.get()


def is_announced() -> bool:
    """Whether this code runs as a part of announced work."""
    return _job.get() is not None

"""Forecasts of long computations, and lines about them: before they start, and while they run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from upweight.core.amounts_in_words import bytes_in_words, in_words
from upweight.core.announcements import announcements
from upweight.core.resident_memory import resident_bytes

LONG_SECONDS = 10.0  # shorter work is not announced
LEAST_LEFT = 3.0  # seconds of a loop that are worth a line
HALF = 0.5  # share of a loop after which all of it takes at most twice as long as what is finished
MEASURED = 0.1  # of the time of a first step: steps that follow for as long say how long a step takes
LOOK_SPACING = 0.05  # seconds between two looks at how far a job is
LINE_SPACING = 1.5  # times the seconds that have passed, until the next line about work that continues

LEAST_FLOPS = 1e10  # operations from which the time of a call is forecast
PRODUCT_WIDTH = 512  # of the matrices whose product is timed

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


class Loop:
    """A loop of a job: how many of its equal steps are finished."""

    __slots__ = ("done", "start", "total")

    def __init__(self, total: int) -> None:
        self.done, self.total, self.start = 0, total, time.perf_counter()


class Job:
    """Running work: its name, its forecast, its loops, and when the next line is due.

    A job without a forecast of its own is forecast from its first steps: from the second one on, because the first may
    load libraries. Loops are nested: a step of an inner loop is a part of a step of the outer one.
    """

    def __init__(self, name: str, forecast: Forecast) -> None:
        self.name, self.forecast, self.start = name, forecast, time.perf_counter()
        self.next_line, self.next_look, self.is_announced = LONG_SECONDS, self.start + LOOK_SPACING, False
        self._whole = 0.0  # seconds that were announced
        self._loops, self._resident = list[Loop](), resident_bytes()
        self._first: tuple[Loop, float, float] | None = None  # outermost loop, share that is finished, time

    def announce(self) -> None:
        """Say what the work will take, if that is long."""
        if self.forecast.seconds >= LONG_SECONDS:
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

    def look(self) -> None:
        """A step of a loop is finished: say what the work will take or how far it is, if that is due."""
        now = time.perf_counter()
        if now < self.next_look:
            return
        self.next_look = now + LOOK_SPACING
        outermost, share = self._loops[0], self._share()
        if self._first is None or self._first[0] is not outermost:
            self._first = outermost, share, now
        _, share_then, then = self._first
        elapsed = now - outermost.start
        is_first = share <= share_then
        if not is_first and is_pace(now - then, then - outermost.start):
            left = (now - then) * (1 - share) / (share - share_then)
        elif is_first and (share >= HALF or elapsed >= LONG_SECONDS):
            left = elapsed * (1 - share) / share
        else:
            return
        if left < LEAST_LEFT:
            return
        whole = now - self.start + left
        if not self.is_announced and whole >= LONG_SECONDS:
            self.is_announced, self._whole = True, 0.0 if is_first else whole
            announcements.info(
                "%s: about %s%s (from the first %.1f %%)", self.name, in_words(whole), self._memory(share), 100 * share
            )
        elif self.is_announced and now - self.start >= self.next_line:
            self.next_line = LINE_SPACING * (now - self.start)
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
        if self._resident is None:
            return ""
        growth = max((resident_bytes() or 0) - self._resident, 0)
        return f" and {bytes_in_words(growth + (1 - share) * self.forecast.bytes)} of memory"


def is_pace(following: float, first: float) -> bool:
    """Whether steps that took `following` seconds after a first one of `first` seconds say how long a step takes.

    The first alone does not: it may load libraries, compile, and start processes. Where several processes work at once,
    their first steps end nearly together.
    """
    return following >= max(LOOK_SPACING, MEASURED * first)


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


def expect_products(flops: float, held: float) -> None:
    """The running job will take this many flops of matrix products, and hold this many bytes, in one call.

    Such a call has no steps from which its time is seen: the rate of a small product is measured instead.
    """
    job = _job.get()
    if job is None or job.is_announced or flops < LEAST_FLOPS:
        return
    matrix = np.ones((PRODUCT_WIDTH, PRODUCT_WIDTH))
    _ = matrix @ matrix  # the first call starts threads
    start = time.perf_counter()
    _ = matrix @ matrix
    seconds = flops * (time.perf_counter() - start) / (2 * PRODUCT_WIDTH**3)
    job.forecast += Forecast({"matrix products": seconds}, held)
    job.announce()


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
        job.look()

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

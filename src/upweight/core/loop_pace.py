"""How long the rest of a loop will take, by the steps that are finished."""

from __future__ import annotations

import time
from typing import NamedTuple

MEASURED = 0.1  # of the time of a first step: steps that follow for as long say how long a step takes
LEAST_PACE = 0.25  # seconds of these steps at least: single ones of a few milliseconds vary
LEAST_LOOKS = 5  # at what follows a first step, unless it takes
CERTAIN_PACE = 1.0  # seconds: a few steps may write to new memory, which is slow
MAX_LOOKS = 256  # that are remembered


class Loop:
    """A loop of a job: how many of its equal steps are finished."""

    __slots__ = ("done", "start", "total")

    def __init__(self, total: int) -> None:
        self.done, self.total, self.start = 0, total, time.perf_counter()


class Look(NamedTuple):
    """When a job looked at its outermost loop, and how far that was, between 0 and 1."""

    time: float
    share: float


class LoopPace:
    """The looks at an outermost loop, from the first one on: at a part of a step, or at a step."""

    def __init__(self, outermost: Loop, is_part: bool, first: Look) -> None:
        self.outermost, self.is_part, self.first = outermost, is_part, first
        self._looks = list[Look]()

    def add(self, look: Look) -> None:
        """Remember a look; of many, every second one."""
        self._looks.append(look)
        if len(self._looks) > MAX_LOOKS:
            del self._looks[::2]

    def is_known(self, now: float) -> bool:
        """Whether the looks say how long a step takes."""
        following = now - self.first.time
        is_certain = len(self._looks) > LEAST_LOOKS or following >= CERTAIN_PACE
        return is_certain and is_pace(following, self.first.time - self.outermost.start)

    def seconds_left(self, now: float, share: float) -> float:
        """Seconds until the loop ends, by the steps since the first look, or by the later ones, if these are faster.

        Early steps write to new memory, which is slow. What slows down later ones is no reason to expect less of it.
        """
        half = (self.first.time + now) / 2
        later = next((look for look in self._looks if half <= look.time and look.share < share), self.first)
        return min((now - since.time) / (share - since.share) for since in (self.first, later)) * (1 - share)


def is_pace(following: float, first: float) -> bool:
    """Whether steps that took `following` seconds after a first one of `first` seconds say how long a step takes.

    The first alone does not: it may load libraries, compile, and start processes. Where several processes work at once,
    their first steps end nearly together.
    """
    return following >= max(LEAST_PACE, MEASURED * first)

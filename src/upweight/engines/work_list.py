"""A work list whose results are files, and the ways through it: in this process, and as one of several ranks."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from upweight.core.progress import Progress, no_progress


class WorkList(ABC):
    """Numbered pieces of work, phase after phase. A phase needs all pieces of those before.

    Pieces of one phase may be made in any order and by any process, and twice without harm.

    Attributes:
        phases: their names in order.
    """

    phases: Sequence[str]

    @abstractmethod
    def count(self, phase: str) -> int:
        """How many pieces a phase has."""

    @abstractmethod
    def missing(self, phase: str) -> list[int]:
        """Numbers of the pieces that no process has finished yet, in ascending order."""

    @abstractmethod
    def commit(self, phase: str, number: int) -> None:
        """Make a piece and write it."""


@dataclass(frozen=True)
class Rank:
    """Which of several processes this is: number `number` of `count`, from 0."""

    number: int
    count: int

    @classmethod
    def of_process(cls, environment: Mapping[str, str] = os.environ) -> Rank:
        """The rank that torchrun gave to this process (RANK and WORLD_SIZE); the only one if there is none.

        Raises ValueError if these variables do not state a rank.
        """
        number, count = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
        if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
            raise ValueError(
                f"expected whole numbers RANK < WORLD_SIZE in the environment, as torchrun sets them, got {number!r} "
                f"and {count!r}"
            )
        return cls(int(number), int(count))

    def own(self, numbers: Sequence[int]) -> list[int]:
        """The pieces that this rank makes: number, number + count, …, whatever others have finished."""
        return [number for number in numbers if number % self.count == self.number]


class Patience(NamedTuple):
    """How a rank waits for the files of the others.

    Attributes:
        seconds: how long it waits for a new file before it gives up.
        longest_pause: seconds between two checks, at most.
    """

    seconds: float = 3600.0
    longest_pause: float = 1.0


AN_HOUR = Patience()


def run_here(work: WorkList, progress: Progress = no_progress) -> None:
    """Make everything that is missing, in this process."""
    run_as_rank(work, Rank(0, 1), progress)


def run_as_rank(work: WorkList, rank: Rank, progress: Progress = no_progress, patience: Patience = AN_HOUR) -> None:
    """Make the missing pieces of this rank, and wait for those of the others: phase after phase.

    Ranks meet in the files alone; there is no collective. If a rank dies, its launcher ends the others (torchrun does,
    and `srun --kill-on-bad-exit`), and the same call continues.

    Raises TimeoutError if no other rank finishes a piece for an hour (see `Patience`).
    """
    for phase in work.phases:
        missing, count = work.missing(phase), work.count(phase)
        progress(phase, count - len(missing), count)
        for number in rank.own(missing):
            work.commit(phase, number)
            if rank.count == 1:
                missing.remove(number)
            else:
                missing = work.missing(phase)
            progress(phase, count - len(missing), count)
        if rank.count > 1:
            _wait_for_others(work, phase, progress, patience)


def wait_until(is_done: Callable[[], bool], what: str, patience: Patience = AN_HOUR) -> None:
    """Return when another process has done it. Raises TimeoutError if that takes longer than an hour."""
    start, pause = time.monotonic(), 0.01
    while not is_done():
        if time.monotonic() - start > patience.seconds:
            raise TimeoutError(_impatience(what, patience))
        time.sleep(pause)
        pause = min(patience.longest_pause, 1.5 * pause)


def _wait_for_others(work: WorkList, phase: str, progress: Progress, patience: Patience) -> None:
    missing, count = work.missing(phase), work.count(phase)
    while missing:
        before = missing
        wait_until(lambda before=before: work.missing(phase) != before, f"{phase} {before[0]}", patience)  # type: ignore[misc]
        missing = work.missing(phase)
        progress(phase, count - len(missing), count)


def _impatience(what: str, patience: Patience) -> str:
    minutes = patience.seconds / 60
    return (
        f"waited {minutes:.0f} minutes for {what}, which another rank should have made: it died, or was not started; "
        "start all ranks again (torchrun, or srun --kill-on-bad-exit), and the same call continues"
    )

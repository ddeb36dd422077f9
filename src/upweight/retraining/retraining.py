"""Retraining: where and how real trainings are done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from upweight.core.progress import Progress, accepts_arguments

How = Literal["stacked", "processes", "ray"]
HOWS = ("stacked", "processes", "ray")


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """Where and how real trainings are done: one value for every function that trains.

    Args:
        processes: trainings at a time, each in a process of its own on this machine; None for all processors, 1 for
            this process alone.
        how: "stacked" (many at once, where the model can), "processes" (one by one) or "ray" (on a cluster, extra
            `ray`); None takes the first where it is cheaper, else the second. The way is chosen by model and data
            alone, so the same call gives the same bits.
        folder: where every result is written to a file of its own; results that the folder holds are not computed
            again, so a call that was interrupted goes on.
        seeds: how many trainings there are of every training set, with seeds 0, 1, …; or which seeds, all different.
            0 is the run that made the model. Functions that train once take one seed, e.g. [3].
        progress: called with (stage, done, total), for trainings with the stage "retrain".

    Raises:
        ValueError: another `how`, fewer than one process, no seed or the same seed twice.
        TypeError: progress that does not take three arguments.
    """

    processes: int | None = None
    how: How | None = None
    folder: str | Path | None = None
    seeds: int | Sequence[int] = 1
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.how is not None and self.how not in HOWS:
            raise ValueError(f"expected how to be one of {', '.join(HOWS)} or None, got {self.how!r}")
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"expected at least one process, got {self.processes}")
        if not isinstance(self.seeds, int | np.integer):
            object.__setattr__(self, "seeds", tuple(int(seed) for seed in self.seeds))
        if not self.runs or len(set(self.runs)) < len(self.runs):
            raise ValueError(f"expected at least one seed, and each once, got {self.seeds}")
        if self.progress is not None and not accepts_arguments(self.progress, 3):
            raise TypeError("expected progress that is called with (stage, done, total), three arguments")

    @property
    def runs(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int | np.integer) else tuple(self.seeds)

    def only_seed(self, wanted_by: str) -> int:
        """The seed, for work that trains once. Raises ValueError where there are several."""
        if len(self.runs) > 1:
            raise ValueError(
                f"{wanted_by} trains with one seed, got {len(self.runs)}; pass uw.Retraining(seeds=[{self.runs[0]}])"
            )
        return self.runs[0]

    def part(self, before: int, total: int) -> Retraining:
        """The same for some of `total` trainings, so many of which were done before."""
        progress = self.progress
        if progress is None:
            return self

        def further(stage: str, done: int, _: int, /) -> None:
            if before + done > 0:
                progress(stage, before + done, total)

        return replace(self, progress=further)


IN_THIS_PROCESS = Retraining(processes=1)
ONE_BY_ONE = Retraining(processes=1, how="processes")

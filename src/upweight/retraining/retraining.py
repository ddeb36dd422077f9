"""The settings of real retrainings: where they run, how many at a time, and with which seeds."""

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
    """Where and how models are retrained: one value for every function that trains.

    Args:
        processes: the number of trainings at a time, each in a separate process on this machine; None for all
            processors, 1 for this process alone. A model of this package is first trained in this process, and again if
            all trainings together take about a second: starting other processes takes longer.
        how: "stacked" (many at once, if the model can), "processes" (one by one) or "ray" (on a cluster, extra `ray`).
            None chooses "stacked" if it is cheaper, else "processes". The choice depends on model and data only, so the
            same call gives the same bits.
        folder: a folder in which every result is saved in a separate file. Results that it already holds are not
            computed again, so an interrupted call can be continued.
        seeds: the number of trainings of every training set, with seeds 0, 1, …; or the seeds, all different. Seed 0 is
            the run that made the model. Functions that train once take one seed, e.g. [3].
        progress: called with (stage, done, total); the stage of trainings is "retrain".
        threads: of linear algebra in each training. The last bits of a result depend on them, but not on `processes`.
            More can help large networks on processors; they have no effect on libraries that train with threads of
            their own, such as boosters, and on stacked copies that are trained all at once.

    Raises:
        ValueError: an unknown `how`, fewer than one process or thread, no seed or the same seed twice.
        TypeError: a progress that does not take three arguments.
    """

    processes: int | None = None
    how: How | None = None
    folder: str | Path | None = None
    seeds: int | Sequence[int] = 1
    progress: Progress | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.how is not None and self.how not in HOWS:
            raise ValueError(f"expected how to be one of {', '.join(HOWS)} or None, got {self.how!r}")
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"expected at least one process, got {self.processes}")
        if self.threads < 1:
            raise ValueError(f"expected at least one thread, got {self.threads}")
        if not isinstance(self.seeds, int | np.integer):
            object.__setattr__(self, "seeds", tuple(int(seed) for seed in self.seeds))
        if not self.runs or len(set(self.runs)) < len(self.runs):
            raise ValueError(f"expected at least one seed, and each seed once, got {self.seeds}")
        if self.progress is not None and not accepts_arguments(self.progress, 3):
            raise TypeError("expected progress that is called with (stage, done, total), three arguments")

    @property
    def runs(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int | np.integer) else tuple(self.seeds)

    def only_seed(self, wanted_by: str) -> int:
        """The seed of work that trains once. Raises ValueError if there are several."""
        if len(self.runs) > 1:
            raise ValueError(
                f"{wanted_by} trains with one seed, got {len(self.runs)}; pass uw.Retraining(seeds=[{self.runs[0]}])"
            )
        return self.runs[0]

    def part(self, before: int, total: int) -> Retraining:
        """The same settings for a part of `total` trainings, after `before` of them: progress counts all of them."""
        progress = self.progress
        if progress is None:
            return self

        def report(stage: str, done: int, _: int, /) -> None:
            if before + done > 0:
                progress(stage, before + done, total)

        return replace(self, progress=report)


IN_THIS_PROCESS = Retraining(processes=1)
ONE_BY_ONE = Retraining(processes=1, how="processes")

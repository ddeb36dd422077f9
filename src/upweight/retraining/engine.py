"""The retraining engine: hands out trainings, keeps what comes of them, brings the numbers back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Parametric
from upweight.retraining.result_cache import ResultCache
from upweight.retraining.task import Ask, HandOut, Job, Task, at_once, by_processes, measured, trained

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]  # (done, of how many)
How = Literal["stacked", "processes", "ray"]
HOWS = ("stacked", "processes", "ray")

logger = logging.getLogger("upweight")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Where and how trainings are done.

    Attributes:
        how: "stacked" (many at once, where the model can), "processes" (one by one) or "ray"; None takes the first
            where it is cheaper, else the second.
        processes: workers on this machine.
        folder: where results are kept, one file each; what is found there is not done again.
        progress: called with (done, of how many).
    """

    how: How | None = None
    processes: int = 1
    folder: str | Path | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.how is not None and self.how not in HOWS:
            raise ValueError(f"expected how to be one of {', '.join(HOWS)} or None, got {self.how!r}")
        if self.processes < 1:
            raise ValueError(f"expected at least one process, got {self.processes}")

    def results(
        self, model: Any, train: Examples, tasks: Sequence[Task], queries: Examples | None, ask: Ask = measured
    ) -> Any:
        """What comes of every task: (tasks, m) answers, or where queries is None (tasks, p) parameters.

        Models that are no vectors come as a list of themselves, and cannot be kept on disk.
        """
        whole = queries is None and not isinstance(model, Parametric)
        if whole and self.folder is not None:
            raise TypeError(
                f"a retrained {type(model).__name__} has no safe form on disk; leave folder= out, or keep measurements "
                "of queries (upweight.retrain_truth)"
            )
        stack = at_once(model, train)
        if self.how == "stacked" and stack.size == 1:
            logger.warning("trained one by one: %s", stack.why)
        size = 1 if self.how == "processes" else stack.size
        job = Job(model, train, queries, size > 1, ask)
        kept = None if self.folder is None else ResultCache(self.folder, job)
        found: dict[int, Any] = {}
        for place, task in enumerate(tasks):
            result = None if kept is None else kept.read(task)
            if result is not None:
                found[place] = result
        left = [place for place in range(len(tasks)) if place not in found]
        self._tell(len(found), len(tasks))
        for within, result in trained(job, [tasks[place] for place in left], size, self._hand_out()):
            place = left[within]
            if kept is not None:
                kept.write(tasks[place], result)
            found[place] = result
            self._tell(len(found), len(tasks))
        results = [found[place] for place in range(len(tasks))]
        return results if whole else np.stack(results)

    def attempts(
        self, model: Any, train: Examples, tasks: Sequence[Task], queries: Examples, ask: Ask = measured
    ) -> list[Array | str]:
        """What comes of every task (m,), or why the model refuses it (most often because a class goes with it)."""
        try:
            return list(self.results(model, train, tasks, queries, ask))
        except ValueError as error:
            if len(tasks) == 1:
                return [str(error)]
        # One that is refused takes the others with it; halves find it in a few rounds.
        half = len(tasks) // 2
        first = self.attempts(model, train, tasks[:half], queries, ask)
        return first + replace(self, progress=None).attempts(model, train, tasks[half:], queries, ask)

    def _hand_out(self) -> HandOut:
        if self.how != "ray":
            return by_processes(self.processes)
        from upweight.retraining.on_ray import each_on_ray

        return each_on_ray

    def _tell(self, done: int, total: int) -> None:
        if self.progress is not None and done:
            self.progress(done, total)


def without(
    engine: Engine, model: Any, train: Examples, queries: Examples, removals: Sequence[NDArray[np.intp]], seed: int = 0
) -> tuple[Array, Array]:
    """(measurements after training on everything (m,), after training without each removal (m, removals)).

    Removals are positions in `train`. The first training removes nothing and is done in the same way as the others:
    effects are differences of two trainings of the same kind, so what the handed-in model lacks to its optimum
    cancels.
    """
    tasks = [Task(seed=seed), *(Task(removed=np.asarray(removed, dtype=np.intp), seed=seed) for removed in removals)]
    found = engine.results(model, train, tasks, queries)
    return found[0], found[1:].T

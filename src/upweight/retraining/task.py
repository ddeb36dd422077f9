"""Retraining: tasks that say which training is to be done again, and what comes of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Parametric, Stack, Stackable, can
from upweight.retraining.pool import each

Array = NDArray[np.float64]
Ask = Callable[[Any, Examples], Array]  # (retrained model, queries) → (m,)
PROBED = 8  # training examples on which a model is held against itself at its own parameters


@dataclass(frozen=True, eq=False)
class Task:
    """One training: without the examples at positions `removed`, or with these `weights` (n,); `seed` as in retrain."""

    removed: NDArray[np.intp] | None = None
    weights: Array | None = None
    seed: int = 0

    def on(self, train: Examples) -> Array:
        """The weights, (n,)."""
        if self.weights is not None:
            return self.weights
        weights = np.ones(len(train))
        if self.removed is not None:
            weights[self.removed] = 0.0
        return weights


def measured(model: Any, queries: Examples) -> Array:
    """The measurement of every query, (m,)."""
    return np.asarray(model.measure(queries))


def predicted(model: Any, queries: Examples) -> Array:
    """Which of the model's classes every query is taken for, as places among them, (m,)."""
    said = model.predict(queries)
    return np.array([said.classes.index(one) for one in said.predicted], dtype=np.float64)


class Job(NamedTuple):
    """What all tasks of a retraining share.

    `queries` None asks for parameters (of models that are no vectors: for themselves), else `ask` is answered for the
    queries; `stacked`: the tasks that come together are trained at once.
    """

    model: Any
    train: Examples
    queries: Examples | None
    stacked: bool
    ask: Ask = measured


Work = Callable[[Job, Sequence[Task]], list[Any]]
HandOut = Callable[[Work, Job, Sequence[Sequence[Task]]], Iterator[tuple[int, list[Any]]]]


def at_once(model: Any, train: Examples) -> Stack:
    """How many models to train at a time; where that is one, why."""
    if not can(model, Stackable):
        return Stack(1, f"a {type(model).__name__} is trained one by one")
    found: Stack = model.stack(train)
    return found


def trained(job: Job, tasks: Sequence[Task], size: int, hand_out: HandOut) -> Iterator[tuple[int, Any]]:
    """(place of the task, what came of it) as trainings finish; `size` tasks go out together."""
    parts = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    for place, results in hand_out(work, job, parts):
        yield from ((place * size + within, result) for within, result in enumerate(results))


def by_processes(processes: int) -> HandOut:
    """Hand tasks out to so many processes of this machine; one is this process."""

    def hand_out(work: Work, job: Job, parts: Sequence[Sequence[Task]]) -> Iterator[tuple[int, list[Any]]]:
        if processes > 1 and len(parts) > 1 and job.model.converges:
            # What such a model prepares for its first training, the optimum it starts from, workers inherit.
            job.model.retrain(job.train, np.ones(len(job.train)))
        yield from each(work, job, parts, 1 if job.model.threads else processes, fork=job.model.forks)

    return hand_out


def work(job: Job, tasks: Sequence[Task]) -> list[Any]:
    """What comes of each task."""
    model, train, queries, stacked, ask = job
    found: Sequence[Any]
    if stacked:
        weights = np.stack([task.on(train) for task in tasks])
        found = model.retrain_many(train, weights, [task.seed for task in tasks])
    else:
        found = [model.retrain(train, task.on(train), task.seed) for task in tasks]
    if queries is not None:
        return [ask(one, queries) for one in found]
    if not isinstance(model, Parametric):
        return list(found)
    some = train.take(np.arange(min(PROBED, len(train))))
    if not np.array_equal(model.with_parameters(found[0].parameters).measure(some), found[0].measure(some)):
        raise ValueError(
            "training changed more than the model's parameters (running statistics of a batch norm?), so parameters "
            "alone are no retrained model; retrain one at a time with model.retrain, which keeps all of it"
        )
    return [np.asarray(one.parameters) for one in found]

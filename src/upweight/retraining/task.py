"""Task: which training is to be done again, and what is asked of the model that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Parametric, Stack, Stackable, can
from upweight.retraining.process_pool import run_in_processes

Array = NDArray[np.float64]
Evaluate = Callable[[Any, Examples], Array]  # (retrained model, queries) → (m,) or (m, columns)
PROBE_EXAMPLES = 8  # training examples on which a model is held against itself at its own parameters


class Applicable(Protocol):
    """What can be done to a training set before it is trained on."""

    def applied(self, train: Examples) -> tuple[Examples, Array]:
        """The training set afterwards, and the factor on each of its weights."""


@dataclass(frozen=True, eq=False)
class Task:
    """One training.

    Attributes:
        removed: positions of the training examples that it goes without;
        weights: or one weight per training example, (n,);
        change: or what is done to the training set first.
        seed: as in `retrain`.
        roughly: no nearer to the optimum than the user's own fit was (`Retrainable.retrain_roughly`).
        queries: positions of the queries that are measured; None for all.
    """

    removed: NDArray[np.intp] | None = None
    weights: Array | None = None
    change: Applicable | None = None
    seed: int = 0
    roughly: bool = False
    queries: NDArray[np.intp] | None = None

    @property
    def alone(self) -> bool:
        """Whether no other task can be trained together with it."""
        return self.change is not None or self.roughly

    def on(self, train: Examples) -> tuple[Examples, Array]:
        """What it trains on, and the weights (n,)."""
        if self.change is not None:
            return self.change.applied(train)
        if self.weights is not None:
            return train, self.weights
        weights = np.ones(len(train))
        if self.removed is not None:
            weights[self.removed] = 0.0
        return train, weights


def measured(model: Any, queries: Examples) -> Array:
    """The measurement of every query, (m,)."""
    return np.asarray(model.measure(queries))


def predicted(model: Any, queries: Examples) -> Array:
    """Which of the model's classes every query is taken for, as places among them, (m,)."""
    said = model.predict(queries)
    return np.array([said.classes.index(one) for one in said.predicted], dtype=np.float64)


class Job(NamedTuple):
    """What all tasks of a retraining share.

    If `queries` is None, tasks give the parameters of the retrained model, or the model itself if it has no parameter
    vector; else they give `evaluate(model, queries)`. If `stacked`, the tasks of one group are trained at once.
    """

    model: Any
    train: Examples
    queries: Examples | None
    stacked: bool
    evaluate: Evaluate = measured


Work = Callable[[Job, Sequence[Task]], list[Any]]
Distribute = Callable[[Work, Job, Sequence[Sequence[Task]]], Iterator[tuple[int, list[Any]]]]


def choose_stack(model: Any, train: Examples) -> Stack:
    """How many models to train at a time; where that is one, why."""
    if not can(model, Stackable):
        return Stack(1, f"a {type(model).__name__} is trained one by one")
    found: Stack = model.stack(train)
    return found


def run_groups(job: Job, tasks: Sequence[Task], size: int, distribute: Distribute) -> Iterator[tuple[int, Any]]:
    """(place of the task, what came of it) as trainings finish; `size` tasks go out together."""
    parts = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    for place, results in distribute(run_group, job, parts):
        yield from ((place * size + within, result) for within, result in enumerate(results))


def distribute_to_processes(processes: int) -> Distribute:
    """Hand tasks out to so many processes of this machine; one is this process."""

    def distribute(work: Work, job: Job, parts: Sequence[Sequence[Task]]) -> Iterator[tuple[int, list[Any]]]:
        if processes > 1 and len(parts) > 1 and job.model.converges:
            # What such a model prepares for its first training, the optimum it starts from, workers inherit.
            job.model.retrain(job.train, np.ones(len(job.train)))
        yield from run_in_processes(work, job, parts, 1 if job.model.threads else processes, fork=job.model.forks)

    return distribute


def run_group(job: Job, tasks: Sequence[Task]) -> list[Any]:
    """What comes of each task."""
    model, train, queries, stacked, evaluate = job
    if stacked:
        weights = np.stack([task.on(train)[1] for task in tasks])
        models: Sequence[Any] = model.retrain_many(train, weights, [task.seed for task in tasks])
    else:
        models = [_retrained(model, train, task) for task in tasks]
    if queries is not None:
        asked = (queries if task.queries is None else queries.take(task.queries) for task in tasks)
        return [evaluate(one, some) for one, some in zip(models, asked, strict=True)]
    if not isinstance(model, Parametric):
        return list(models)
    some = train.take(np.arange(min(PROBE_EXAMPLES, len(train))))
    if not np.array_equal(model.with_parameters(models[0].parameters).measure(some), models[0].measure(some)):
        raise ValueError(
            "training changed more than the model's parameters (running statistics of a batch norm?), so parameters "
            "alone are no retrained model; retrain one at a time with model.retrain, which keeps all of it"
        )
    return [np.asarray(one.parameters) for one in models]


def _retrained(model: Any, train: Examples, task: Task) -> Any:
    train_again = model.retrain_roughly if task.roughly else model.retrain
    return train_again(*task.on(train), task.seed)

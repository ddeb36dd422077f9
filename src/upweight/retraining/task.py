"""Tasks: which trainings to make, what to evaluate on each retrained model, and how groups of tasks are run."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks
from upweight.core.capability_checks import can
from upweight.core.examples import Examples
from upweight.core.forecast import counted, expect_results
from upweight.core.model import Parametric
from upweight.core.stackable import Stack, Stackable
from upweight.core.threads import limit_threads
from upweight.engines.process_pool import available_processors, run_in_processes

Array = NDArray[np.float64]
Evaluate = Callable[[Any, Examples], Array]  # (retrained model, queries) → (m,) or (m, columns)
MAX_TRIAL_SECONDS = 1.0  # seconds to the optimum up to which the first retrainings are tried in this process
PROBE_EXAMPLES = 8  # training examples on which a retrained model is compared with its parameters in the old model


class Applicable(Protocol):
    """A change of a training set."""

    def applied(self, train: Examples) -> tuple[Examples, Array]:
        """The changed training set, and the factor on each of its weights."""


@dataclass(frozen=True, eq=False)
class Task:
    """One training. At most one of `removed`, `weights` and `change` is given.

    Attributes:
        removed: positions of the training examples to leave out.
        weights: one weight per training example, (n,).
        change: a change of the training set.
        seed: as in `retrain`.
        roughly: train no nearer to the optimum than the user's own fit was (`Retrainable.retrain_roughly`).
        queries: positions of the queries to evaluate; None for all.
    """

    removed: NDArray[np.intp] | None = None
    weights: Array | None = None
    change: Applicable | None = None
    seed: int = 0
    roughly: bool = False
    queries: NDArray[np.intp] | None = None

    @property
    def is_stackable(self) -> bool:
        """Whether it can be trained at once with other tasks: it differs from them by seed and weights only."""
        return self.change is None and not self.roughly

    def training_set(self, train: Examples) -> tuple[Examples, Array]:
        """The examples to train on, and their weights (n,)."""
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
    """The predicted class of every query, as its index among the model's classes, (m,)."""
    predictions = model.predict(queries)
    return np.array([predictions.classes.index(name) for name in predictions.predicted], dtype=np.float64)


class Job(NamedTuple):
    """The data that all tasks of a retraining share.

    If `queries` is None, tasks give the parameters of the retrained model, or the model itself if it has no parameter
    vector; else they give `evaluate(model, queries)`. If `stacked`, the tasks of one group are trained at once.
    """

    model: Any
    train: Examples
    queries: Examples | None
    stacked: bool
    evaluate: Evaluate = measured


Work = Callable[[Job, Sequence[Task]], list[Any]]
Name = Callable[[int], str]  # position of a group → its name in errors
Distribute = Callable[[Work, Job, Sequence[Sequence[Task]], Name], Iterator[tuple[int, list[Any]]]]


def choose_stack(model: Any, train: Examples) -> Stack:
    """How many models to train at a time, and why if that is one."""
    if not can(model, Stackable):
        return Stack(1, f"a {type(model).__name__} is trained one by one")
    stack: Stack = model.stack(train)
    return stack


def run_groups(
    job: Job, tasks: Sequence[Task], size: int, distribute: Distribute, numbers: Sequence[int]
) -> Generator[tuple[int, Any], None, None]:
    """(position of the task, its result) in the order in which trainings finish; a group has `size` tasks.

    An error names a task by its number.
    """
    groups = [tasks[part] for part in blocks(len(tasks), size)]

    def name(group: int) -> str:
        first, last = numbers[group * size], numbers[min((group + 1) * size, len(tasks)) - 1]
        seed = tasks[group * size].seed
        return f"training {first} (seed {seed})" if size == 1 else f"trainings {first} to {last}"

    is_parameters = job.queries is None and isinstance(job.model, Parametric)
    if is_parameters:  # all of them are held
        expect_results(len(tasks) * np.asarray(job.model.trained_state).nbytes)
    for done, (position, results) in enumerate(counted(distribute(run_group, job, groups, name), len(groups))):
        if not done and not is_parameters:
            expect_results(len(groups) * sum(getattr(result, "nbytes", 0) for result in results))
        yield from ((position * size + within, result) for within, result in enumerate(results))


def distribute_to_processes(processes: int | None, threads: int) -> Distribute:
    """Run groups of tasks in this many processes of this machine, each with this many threads.

    With 1, in this process; None for all processors, or this process if the trainings are short.
    """

    def distribute(
        work: Work, job: Job, groups: Sequence[Sequence[Task]], name: Name
    ) -> Iterator[tuple[int, list[Any]]]:
        processors = available_processors() if processes is None else processes
        start = time.perf_counter()
        if processors > 1 and len(groups) > 1 and job.model.converges:
            # Such a model first computes its optimum, from which all trainings start; the job brings it to the workers.
            with limit_threads(threads):
                job.model.retrain(job.train, np.ones(len(job.train)))
        may_stay = _is_harmless(job.model) and time.perf_counter() - start < MAX_TRIAL_SECONDS
        # One group has the processors to itself, however many processes there may be.
        has_processors = job.model.threads or (job.stacked and len(groups) == 1)
        yield from run_in_processes(
            work,
            job,
            groups,
            1 if job.model.threads else processors,
            threads=None if has_processors else threads,
            may_stay=may_stay,
            name=name,
        )

    return distribute


def _is_harmless(model: Any) -> bool:
    """Whether training runs no function of the user, which could end the process that it runs in."""
    return bool(model.reads_examples) and type(model).__module__.partition(".")[0] == __name__.partition(".")[0]


def run_group(job: Job, tasks: Sequence[Task]) -> list[Any]:
    """The result of each task of a group."""
    model, train, queries, stacked, evaluate = job
    if stacked:
        weights = np.stack([task.training_set(train)[1] for task in tasks])
        models: Sequence[Any] = model.retrain_many(train, weights, [task.seed for task in tasks])
    else:
        models = [_retrained(model, train, task) for task in tasks]
    if queries is not None:
        of_tasks = (queries if task.queries is None else queries.take(task.queries) for task in tasks)
        return [evaluate(retrained, of_task) for retrained, of_task in zip(models, of_tasks, strict=True)]
    if not isinstance(model, Parametric):
        return list(models)
    probes = train.take(np.arange(min(PROBE_EXAMPLES, len(train))))
    if not np.array_equal(model.with_trained_state(models[0].trained_state).measure(probes), models[0].measure(probes)):
        raise ValueError(
            "training changed more than the model's parameters and the running statistics of batch norms (a buffer of "
            "the net?), so these alone do not make a retrained model; retrain one at a time with model.retrain, which "
            "returns the whole model"
        )
    return [np.asarray(retrained.trained_state) for retrained in models]


def _retrained(model: Any, train: Examples, task: Task) -> Any:
    retrain = model.retrain_roughly if task.roughly else model.retrain
    return retrain(*task.training_set(train), task.seed)

"""The retraining engine: runs retraining tasks, caches their results on disk, and returns them as arrays."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.library_calls import library_call
from upweight.core.model import Parametric
from upweight.core.stackable import Stack
from upweight.core.task_clock import TaskClock
from upweight.retraining.interruption import report_unfinished
from upweight.retraining.result_cache import ResultCache
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import (
    Distribute,
    Evaluate,
    Job,
    Task,
    choose_stack,
    distribute_to_processes,
    measured,
    run_groups,
)

Array = NDArray[np.float64]

logger = logging.getLogger("upweight")


@library_call
def run_tasks(
    retraining: Retraining,
    model: Any,
    train: Examples,
    tasks: Sequence[Task],
    queries: Examples | None,
    evaluate: Evaluate = measured,
) -> Any:
    """The results of all tasks: `evaluate` on the queries, (tasks, m, …); if `queries` is None, parameters (tasks, p).

    The results are a list if tasks have queries of their own. For models without a parameter vector and `queries` None
    they are a list of models, which cannot be stored on disk.
    """
    returns_models = queries is None and not isinstance(model, Parametric)
    if returns_models and retraining.folder is not None:
        raise TypeError(
            f"a retrained {type(model).__name__} has no safe form on disk; leave folder= out, or store measurements "
            "of queries (upweight.retrain_truth)"
        )
    stack = _stack_for(model, train, tasks)
    if retraining.how == "stacked" and stack.size == 1:
        logger.warning("trained one by one: %s", stack.why)
    size = 1 if retraining.how == "processes" else stack.size
    job = Job(model, train, queries, size > 1, evaluate)
    cache = None if retraining.folder is None else ResultCache(retraining.folder, job)
    results: dict[int, Any] = {}
    arrays = None if returns_models or any(task.queries is not None for task in tasks) else Arrays(len(tasks))
    for position, task in enumerate(tasks):
        cached = None if cache is None else cache.read(task)
        if cached is not None:
            results[position] = cached if arrays is None else arrays.put(position, cached)
    remaining = [position for position in range(len(tasks)) if position not in results]
    _report_progress(retraining, len(results), len(tasks))
    distribute = _choose_distribution(retraining)
    todo, numbers = [tasks[position] for position in remaining], [position + 1 for position in remaining]
    clock = None if retraining.progress is not None or not remaining else TaskClock("retrainings", len(remaining))
    with (
        report_unfinished(results, len(tasks), retraining.folder),
        closing(run_groups(job, todo, size, distribute, numbers)) as finished,
    ):
        for index, result in finished:
            position = remaining[index]
            if cache is not None:
                cache.write(tasks[position], result)
            results[position] = result if arrays is None else arrays.put(position, result)
            if clock is not None:
                clock.finished(result)
            _report_progress(retraining, len(results), len(tasks))
    in_order = [results[position] for position in range(len(tasks))]
    return in_order if arrays is None else arrays.joined(in_order)


@final
class Arrays:
    """Results as rows of one array, which holds each of them once: they may be all parameters of many models."""

    def __init__(self, count: int) -> None:
        self._count, self._whole = count, np.empty(0)
        self._are_equal = True  # in shape and type

    def put(self, position: int, result: Any) -> Any:
        """The result, in its place if it is an array like the first one."""
        result = np.asarray(result)
        if not len(self._whole):
            self._whole = np.empty((self._count, *result.shape), dtype=result.dtype)
        if result.shape != self._whole.shape[1:] or result.dtype != self._whole.dtype:
            self._are_equal = False
            return result
        self._whole[position] = result
        return self._whole[position]

    def joined(self, results: Sequence[Any]) -> Array:
        """All results, (tasks, …)."""
        return self._whole if self._are_equal and len(self._whole) else np.stack(results)


def try_tasks(
    retraining: Retraining,
    model: Any,
    train: Examples,
    tasks: Sequence[Task],
    queries: Examples | None,
    evaluate: Evaluate = measured,
) -> list[Any]:
    """The result of every task, as `run_tasks` returns it, or the reason why the model refuses it.

    Mostly that is because a class would be lost.
    """
    try:
        return list(run_tasks(retraining, model, train, tasks, queries, evaluate))
    except ValueError as error:
        if len(tasks) == 1:
            return [str(error)]
    # One refused task stops all others; repeated halving finds it in a few rounds.
    half = len(tasks) // 2
    first = try_tasks(retraining, model, train, tasks[:half], queries, evaluate)
    return first + try_tasks(replace(retraining, progress=None), model, train, tasks[half:], queries, evaluate)


def retrain_without(
    retraining: Retraining, model: Any, train: Examples, queries: Examples, removals: Sequence[NDArray[np.intp]]
) -> tuple[Array, Array]:
    """(measurements after training on everything (m,), after training without each removal (m, removals)).

    Removals are positions in `train`. The first training removes nothing and is made in the same way as the others.
    So an effect is the difference of two trainings of the same kind, and the distance of the given model from its
    optimum cancels.
    """
    seed = retraining.only_seed("this comparison")
    tasks = [Task(seed=seed), *(Task(removed=np.asarray(removed, dtype=np.intp), seed=seed) for removed in removals)]
    measurements = run_tasks(retraining, model, train, tasks, queries)
    return measurements[0], measurements[1:].T


def _stack_for(model: Any, train: Examples, tasks: Sequence[Task]) -> Stack:
    """How many of these tasks to train at a time, and the reason if they are trained one by one."""
    stack = choose_stack(model, train)
    if stack.size > 1 and not all(task.is_stackable for task in tasks):
        return Stack(1, "these trainings differ by more than example weights")
    return stack


def _choose_distribution(retraining: Retraining) -> Distribute:
    if retraining.how != "ray":
        return distribute_to_processes(retraining.processes, retraining.threads)
    from upweight.engines.ray_actors import run_on_ray

    return partial(run_on_ray, threads=retraining.threads)


def _report_progress(retraining: Retraining, done: int, total: int) -> None:
    if retraining.progress is not None and done:
        retraining.progress("retrain", done, total)

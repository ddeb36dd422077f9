"""The retraining engine: hands out trainings, writes down what comes of them, brings the numbers back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.change_checks import check_changes_once
from upweight.core.examples import Examples
from upweight.core.model import Parametric, Stack
from upweight.retraining.process_pool import available_processors
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


@check_changes_once
def run_tasks(
    retraining: Retraining,
    model: Any,
    train: Examples,
    tasks: Sequence[Task],
    queries: Examples | None,
    evaluate: Evaluate = measured,
) -> Any:
    """What comes of every task: (tasks, m, …) answers, or where queries is None (tasks, p) parameters.

    A list, where tasks have queries of their own. Models that are no vectors come as a list of themselves, and cannot
    be kept on disk.
    """
    whole = queries is None and not isinstance(model, Parametric)
    if whole and retraining.folder is not None:
        raise TypeError(
            f"a retrained {type(model).__name__} has no safe form on disk; leave folder= out, or keep measurements "
            "of queries (upweight.retrain_truth)"
        )
    stack = _together(model, train, tasks)
    if retraining.how == "stacked" and stack.size == 1:
        logger.warning("trained one by one: %s", stack.why)
    size = 1 if retraining.how == "processes" else stack.size
    job = Job(model, train, queries, size > 1, evaluate)
    cache = None if retraining.folder is None else ResultCache(retraining.folder, job)
    done: dict[int, Any] = {}
    for place, task in enumerate(tasks):
        result = None if cache is None else cache.read(task)
        if result is not None:
            done[place] = result
    left = [place for place in range(len(tasks)) if place not in done]
    _tell(retraining, len(done), len(tasks))
    for within, result in run_groups(job, [tasks[place] for place in left], size, _hand_out(retraining)):
        place = left[within]
        if cache is not None:
            cache.write(tasks[place], result)
        done[place] = result
        _tell(retraining, len(done), len(tasks))
    in_order = [done[place] for place in range(len(tasks))]
    return in_order if whole or any(task.queries is not None for task in tasks) else np.stack(in_order)


def try_tasks(
    retraining: Retraining,
    model: Any,
    train: Examples,
    tasks: Sequence[Task],
    queries: Examples,
    evaluate: Evaluate = measured,
) -> list[Array | str]:
    """What comes of every task (m,), or why the model refuses it (most often because a class goes with it)."""
    try:
        return list(run_tasks(retraining, model, train, tasks, queries, evaluate))
    except ValueError as error:
        if len(tasks) == 1:
            return [str(error)]
    # One that is refused takes the others with it; halves find it in a few rounds.
    half = len(tasks) // 2
    first = try_tasks(retraining, model, train, tasks[:half], queries, evaluate)
    return first + try_tasks(replace(retraining, progress=None), model, train, tasks[half:], queries, evaluate)


def retrain_without(
    retraining: Retraining, model: Any, train: Examples, queries: Examples, removals: Sequence[NDArray[np.intp]]
) -> tuple[Array, Array]:
    """(measurements after training on everything (m,), after training without each removal (m, removals)).

    Removals are positions in `train`. The first training removes nothing and is done in the same way as the others:
    effects are differences of two trainings of the same kind, so what the handed-in model lacks to its optimum
    cancels.
    """
    seed = retraining.only_seed("this comparison")
    tasks = [Task(seed=seed), *(Task(removed=np.asarray(removed, dtype=np.intp), seed=seed) for removed in removals)]
    measurements = run_tasks(retraining, model, train, tasks, queries)
    return measurements[0], measurements[1:].T


def _together(model: Any, train: Examples, tasks: Sequence[Task]) -> Stack:
    """How many of these tasks to train at a time; where that is one, why."""
    stack = choose_stack(model, train)
    if stack.size > 1 and any(task.alone for task in tasks):
        return Stack(1, "these trainings differ by more than example weights")
    return stack


def _hand_out(retraining: Retraining) -> Distribute:
    if retraining.how != "ray":
        return distribute_to_processes(available_processors() if retraining.processes is None else retraining.processes)
    from upweight.retraining.ray_pool import run_on_ray

    return run_on_ray


def _tell(retraining: Retraining, done: int, total: int) -> None:
    if retraining.progress is not None and done:
        retraining.progress("retrain", done, total)

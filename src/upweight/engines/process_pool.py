"""Run tasks in this process or in workers: where they run, and in what order results come."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from multiprocessing import current_process
from typing import Any

from upweight.core.threads import limit_threads
from upweight.engines import worker_program
from upweight.engines.job_file import UnsendableError
from upweight.engines.run_folder import remove_abandoned_folders
from upweight.engines.worker_run import WorkerRun

SHORT_SECONDS = 1.2  # a run that takes no longer than this in one process is not worth starting others

logger = logging.getLogger("upweight")


def available_processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def task_name(position: int) -> str:
    """How an error names a task."""
    return f"task {position}"


def run_in_processes(
    work: Callable[[Any, Any], Any],
    shared: Any,
    tasks: Sequence[Any],
    processes: int = 1,
    *,
    threads: int | None = 1,
    may_stay: bool = False,
    name: Callable[[int], str] = task_name,
) -> Iterator[tuple[int, Any]]:
    """(position, work(shared, task)) for every task, in the order in which tasks finish.

    With one process, or in a worker or daemonic process, everything runs in this process; with more, in workers, which
    are new processes and get `shared` once. The first task that fails ends the run. If a worker dies, its task is
    repeated in another one.

    Args:
        work: the function of a task.
        shared: what all tasks need.
        tasks: one argument each.
        processes: the number of tasks at a time.
        threads: of linear algebra in each task, so that results do not depend on where it runs; None for no limit.
        may_stay: run the first tasks in this process, and all if they are short: starting others takes longer.
        name: of the task at a position, for errors.

    Raises:
        RuntimeError: workers keep dying at a task, or one of them hangs; the error names the task.
    """
    remaining = dict(enumerate(tasks))
    remove_abandoned_folders()
    if processes > 1 and len(tasks) > 1 and not _stays_here():
        if may_stay:
            yield from _run_while_short(work, shared, remaining, threads)
        try:
            if remaining:
                yield from WorkerRun(work, shared, remaining, processes, threads or 1, name).results()
        except UnsendableError as error:
            logger.warning("the model cannot be sent to other processes (%s); it is trained in this process", error)
    yield from _run_here(work, shared, remaining, threads)


def _stays_here() -> bool:
    """Whether this process must not start others: it is one of many itself, or it does not know its interpreter."""
    return current_process().daemon or worker_program.is_worker or not sys.executable


def _run_here(work: Any, shared: Any, remaining: dict[int, Any], threads: int | None) -> Iterator[tuple[int, Any]]:
    for position in list(remaining):
        with nullcontext() if threads is None else limit_threads(threads):
            result = work(shared, remaining[position])
        del remaining[position]
        yield position, result


def _run_while_short(
    work: Any, shared: Any, remaining: dict[int, Any], threads: int | None
) -> Iterator[tuple[int, Any]]:
    """Run tasks in this process as long as all of them together are expected to be short."""
    start, total = time.perf_counter(), len(remaining)
    for position, result in _run_here(work, shared, remaining, threads):
        yield position, result
        elapsed = time.perf_counter() - start
        if elapsed * total / (total - len(remaining)) > SHORT_SECONDS:
            return

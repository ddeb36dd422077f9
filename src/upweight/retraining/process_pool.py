"""Run tasks in other processes of this machine, with the standard library's pool; the only file that does so."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, get_start_method
from typing import Any

from upweight.core.threads import one_thread

MAX_BROKEN_POOLS = 3  # how many pools in a row may break without finishing a task

logger = logging.getLogger("upweight")
_shared: Any = None


def available_processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_in_processes(
    work: Callable[[Any, Any], Any], shared: Any, tasks: Sequence[Any], processes: int = 1, fork: bool = True
) -> Iterator[tuple[int, Any]]:
    """(position, work(shared, task)) for every task, in the order in which tasks finish.

    With one process everything runs in this process. With more, `shared` is sent to each worker once. If a worker dies,
    the pool breaks; a new pool takes over the remaining tasks, until three pools in a row have broken without finishing
    a task. Workers are forked if the system does that by default and `fork` allows it; otherwise they are spawned.

    Raises:
        RuntimeError: workers keep dying (most often: not enough memory for so many processes).
    """
    if processes <= 1 or len(tasks) <= 1:
        yield from ((position, work(shared, task)) for position, task in enumerate(tasks))
        return
    context = get_context("spawn" if get_start_method() == "fork" and not fork else None)
    if context.get_start_method() != "fork" and not _is_picklable(shared):
        logger.warning(
            "the model cannot be sent to other processes (does it contain a lambda?); it is trained in this process"
        )
        yield from run_in_processes(work, shared, tasks)
        return
    remaining, broken = dict(enumerate(tasks)), 0
    while broken < MAX_BROKEN_POOLS:
        before = len(remaining)
        for position, result in _run_pool(work, shared, remaining, min(processes, len(remaining)), context):
            del remaining[position]
            yield position, result
        if not remaining:
            return
        broken = broken + 1 if len(remaining) == before else 0
    cause = "the most common cause is too little memory: use fewer processes"
    if context.get_start_method() != "fork" and len(remaining) == len(tasks):
        # A spawned worker first runs the calling script, which without a guard would start workers itself.
        cause = (
            "workers are spawned here (a model on a GPU cannot be forked) and run the calling script again: put its "
            'code under if __name__ == "__main__":, or use processes=1; if it is there already, memory is probably '
            "too small: use fewer processes"
        )
    raise RuntimeError(
        f"worker processes died {MAX_BROKEN_POOLS} times with {len(remaining)} of {len(tasks)} tasks to do; {cause}"
    )


def _run_pool(
    work: Any, shared: Any, remaining: dict[int, Any], processes: int, context: Any
) -> Iterator[tuple[int, Any]]:
    """(position, result) of the tasks that one pool finishes before it breaks."""
    with ProcessPoolExecutor(processes, context, initializer=_initialise_worker, initargs=(shared,)) as pool:
        waiting: dict[Future[Any], int] = {}
        try:
            for position, task in remaining.items():
                waiting[pool.submit(_run_task, work, task)] = position
        except BrokenProcessPool:
            pass
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                position = waiting.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    continue
                yield position, result


def _is_picklable(shared: Any) -> bool:
    try:
        pickle.dumps(shared)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _initialise_worker(shared: Any) -> None:
    global _shared  # noqa: PLW0603 - a worker can keep what is sent once only in a global
    _shared = shared
    # The MKL in torch has its own number of threads, which limits from outside do not change. If it was set in the
    # parent by torch.set_num_threads or MKL_NUM_THREADS, MKL waits for ever for threads that the fork did not copy.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _run_task(work: Callable[[Any, Any], Any], task: Any) -> Any:
    with one_thread():
        return work(_shared, task)

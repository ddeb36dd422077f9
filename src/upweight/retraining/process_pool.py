"""Processes: the one place where work leaves this one (the standard library's pool)."""

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

ROUNDS = 3  # pools that may break one after another without a task being finished

logger = logging.getLogger("upweight")
_shared: Any = None


def available_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_in_processes(
    work: Callable[[Any, Any], Any], shared: Any, tasks: Sequence[Any], processes: int = 1, fork: bool = True
) -> Iterator[tuple[int, Any]]:
    """(place, work(shared, task)) for every task, as they finish.

    With one process everything happens here. With more, `shared` goes to each worker once; a worker that dies takes
    its task with it and both are started again, until three workers in a row have died without a task being finished.
    Workers are forked where the system does that and `fork` allows it, else they begin anew.

    Raises:
        RuntimeError: workers keep dying (most often: not enough memory for so many processes).
    """
    if processes <= 1 or len(tasks) <= 1:
        yield from ((place, work(shared, task)) for place, task in enumerate(tasks))
        return
    context = get_context("spawn" if get_start_method() == "fork" and not fork else None)
    if context.get_start_method() != "fork" and not _can_leave(shared):
        logger.warning("the model cannot be sent to other processes (a lambda in it?); training in this one")
        yield from run_in_processes(work, shared, tasks)
        return
    left, idle = dict(enumerate(tasks)), 0
    while idle < ROUNDS:
        before = len(left)
        for place, result in _round(work, shared, left, min(processes, len(left)), context):
            del left[place]
            yield place, result
        if not left:
            return
        idle = idle + 1 if len(left) == before else 0
    why = "most often memory is short: use fewer processes"
    if context.get_start_method() != "fork" and len(left) == len(tasks):
        # They run the calling script again first, and one that is not guarded starts workers of its own there.
        why = (
            "workers begin anew here (a model on a GPU cannot be forked) and run the calling script again: put what it "
            'does under if __name__ == "__main__":, or use processes=1; else memory is short: use fewer processes'
        )
    raise RuntimeError(f"worker processes died {ROUNDS} times with {len(left)} of {len(tasks)} tasks to do; {why}")


def _round(work: Any, shared: Any, left: dict[int, Any], processes: int, context: Any) -> Iterator[tuple[int, Any]]:
    """What one pool finishes before it is done or broken."""
    with ProcessPoolExecutor(processes, context, initializer=_receive, initargs=(shared,)) as pool:
        waiting: dict[Future[Any], int] = {}
        try:
            for place, task in left.items():
                waiting[pool.submit(_do, work, task)] = place
        except BrokenProcessPool:
            pass
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                place = waiting.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    continue
                yield place, result


def _can_leave(shared: Any) -> bool:
    try:
        pickle.dumps(shared)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _receive(shared: Any) -> None:
    global _shared  # noqa: PLW0603 - a worker's only way to keep what came once
    _shared = shared
    # The MKL in torch has a count of its own, which no limit from outside reaches. If torch.set_num_threads in the
    # parent or MKL_NUM_THREADS has set it, MKL waits for ever for threads that the fork left behind.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _do(work: Callable[[Any, Any], Any], task: Any) -> Any:
    with one_thread():
        return work(_shared, task)

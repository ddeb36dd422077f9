"""Run tasks on a Ray cluster (extra `upweight[ray]`); the only file that uses Ray."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from upweight.core.threads import limit_threads
from upweight.retraining.interruption import end_on_sigterm
from upweight.retraining.process_pool import task_name

MAX_RETRIES = 4  # how often a task is restarted because its worker died
POLL_SECONDS = 0.5


def run_on_ray(
    work: Callable[[Any, Any], Any],
    shared: Any,
    tasks: Sequence[Any],
    name: Callable[[int], str] = task_name,
    *,
    threads: int = 1,
) -> Iterator[tuple[int, Any]]:
    """(position, work(shared, task)) for every task, in the order in which tasks finish.

    Uses the cluster of an earlier `ray.init()` or of RAY_ADDRESS. If there is none, starts one on this machine for the
    duration of the work. `shared` is sent to every node once. If a worker or a node dies, its task runs elsewhere. The
    first task that fails, or an interrupt, cancels all others.

    Raises:
        ImportError: Ray is not installed.
        RuntimeError: the workers of one task keep dying; the error names the task.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError('how="ray" needs Ray: pip install "upweight[ray]"') from error

    started = not ray.is_initialized()
    if started:
        # Workers can then import the same modules as this process.
        variables = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        environment = {"env_vars": variables}
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False, runtime_env=environment)
    waiting: dict[Any, int] = {}
    try:
        with end_on_sigterm():
            reference = ray.put(shared)
            remote_task = ray.remote(max_retries=MAX_RETRIES, num_cpus=threads)(_run_task)
            waiting.update({remote_task.remote(work, reference, task, threads): i for i, task in enumerate(tasks)})
            while waiting:
                finished, _ = ray.wait(list(waiting), num_returns=1, timeout=POLL_SECONDS)
                for reference_of_task in finished:
                    position = waiting.pop(reference_of_task)
                    yield position, _result(ray, reference_of_task, name(position))
    finally:
        if started:
            ray.shutdown()
        else:
            for reference_of_task in waiting:
                ray.cancel(reference_of_task, force=True)


def _result(ray: Any, reference: Any, name: str) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        error.cause.add_note(f"This was raised in {name}.")
        raise error.cause from error  # the error of the work itself
    except ray.exceptions.WorkerCrashedError as error:
        raise RuntimeError(
            f"workers died {MAX_RETRIES + 1} times in {name}; the most common cause is too little memory on the nodes"
        ) from error


def _run_task(work: Callable[[Any, Any], Any], shared: Any, task: Any, threads: int) -> Any:
    with limit_threads(threads):
        return work(shared, task)

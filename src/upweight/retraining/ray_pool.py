"""Run tasks on a Ray cluster (extra `upweight[ray]`); the only file that uses Ray."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from upweight.core.threads import one_thread

MAX_RETRIES = 4  # how often a task is restarted because its worker died


def run_on_ray(work: Callable[[Any, Any], Any], shared: Any, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """(position, work(shared, task)) for every task, in the order in which tasks finish.

    Uses the cluster of an earlier `ray.init()` or of RAY_ADDRESS. If there is none, starts one on this machine for the
    duration of the work. `shared` is sent to every node once. If a worker or a node dies, its task runs elsewhere.

    Raises:
        ImportError: Ray is not installed.
        RuntimeError: the workers of one task keep dying.
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
    try:
        reference = ray.put(shared)
        remote_task = ray.remote(max_retries=MAX_RETRIES, num_cpus=1)(_run_task)
        waiting = {remote_task.remote(work, reference, task): position for position, task in enumerate(tasks)}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            try:
                result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error  # the error of the work itself
            except ray.exceptions.WorkerCrashedError as error:
                raise RuntimeError(
                    f"workers died {MAX_RETRIES + 1} times on one task; the most common cause is too little memory "
                    "on the nodes"
                ) from error
            yield waiting.pop(done), result
    finally:
        if started:
            ray.shutdown()


def _run_task(work: Callable[[Any, Any], Any], shared: Any, task: Any) -> Any:
    with one_thread():
        return work(shared, task)

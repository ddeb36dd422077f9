"""Ray: trainings on more than one machine (extra `upweight[ray]`); the one file that knows it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from upweight.core.threads import one_thread

RETRIES = 4  # times that a task is started again because its worker died


def run_on_ray(work: Callable[[Any, Any], Any], shared: Any, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """(place, work(shared, task)) for every task, as they finish.

    Uses the cluster that is there (`ray.init()` before, or RAY_ADDRESS), else starts one on this machine for as long
    as the work lasts. `shared` goes to every node once. A worker or a node that dies has its task done elsewhere.

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
        found = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # workers import what we can
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False, runtime_env={"env_vars": found})
    try:
        there = ray.put(shared)
        do = ray.remote(max_retries=RETRIES, num_cpus=1)(_do)
        waiting = {do.remote(work, there, task): place for place, task in enumerate(tasks)}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            try:
                result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error  # what the work itself raised
            except ray.exceptions.WorkerCrashedError as error:
                raise RuntimeError(
                    f"workers died {RETRIES + 1} times on one task; most often memory is short on the nodes"
                ) from error
            yield waiting.pop(done), result
    finally:
        if started:
            ray.shutdown()


def _do(work: Callable[[Any, Any], Any], shared: Any, task: Any) -> Any:
    with one_thread():
        return work(shared, task)

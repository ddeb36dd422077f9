"""Run tasks on Ray actors (extra `upweight[ray]`); the only file that uses Ray."""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, final

from upweight.core.threads import limit_threads
from upweight.engines.job_file import BY_VALUE
from upweight.engines.process_pool import task_name
from upweight.engines.termination import end_on_sigterm

MAX_RETRIES = 4  # how often a task is restarted because its actor died
POLL_SECONDS = 0.5


def run_on_ray(
    work: Callable[[Any, Any], Any],
    shared: Any,
    tasks: Sequence[Any],
    name: Callable[[int], str] = task_name,
    *,
    threads: int = 1,
) -> Iterator[tuple[int, Any]]:
    """(position, work(shared, task)) for every task, in the order in which tasks finish, as `RayActors` runs them."""
    with RayActors(work, shared, threads=threads) as actors:
        yield from actors.run(tasks, name)


@final
class RayActors:
    """Actors that share an object, and run one list of tasks after the other: a context.

    Uses the cluster of an earlier `ray.init()` or of RAY_ADDRESS. If there is none, starts one on this machine for the
    duration of the context. The shared object is sent to every node once, and is loaded once by every actor. If an
    actor dies, alone or with its node, another one repeats its task. A cluster that grows gets more actors.

    Args:
        work: called as work(loaded, task) in the actors.
        shared: what all tasks need.
        load: makes `loaded` of `shared`, once in each actor; None for `shared` itself.
        actors: at most this many; None for one on every processor of the cluster.
        threads: of linear algebra, and processors, of each actor.

    Raises:
        ImportError: Ray is not installed.
    """

    def __init__(
        self,
        work: Callable[[Any, Any], Any],
        shared: Any,
        *,
        load: Callable[[Any], Any] | None = None,
        actors: int | None = None,
        threads: int = 1,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError('how="ray" needs Ray: pip install "upweight[ray]"') from error
        self._ray: Any = ray
        self._limit, self._threads = actors, threads
        self._work, self._shared, self._load = work, shared, load
        self._starting: dict[Any, Any] = {}  # what `ready` will return → actor
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, int]] = {}  # what a task will return → its actor and position
        self._failed_starts = 0

    def __enter__(self) -> Self:
        self._is_own_cluster = not self._ray.is_initialized()
        if self._is_own_cluster:
            # Workers can then import the same modules as this process.
            variables = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            is_local = not os.environ.get("RAY_ADDRESS")
            self._ray.init(
                log_to_driver=False,
                configure_logging=False,
                runtime_env={"env_vars": variables},
                **({"include_dashboard": False} if is_local else {}),
            )
        for module in BY_VALUE & sys.modules.keys():
            self._ray.cloudpickle.register_pickle_by_value(sys.modules[module])
        arguments = self._ray.put(self._work), self._ray.put(self._shared), self._ray.put(self._load)
        kind = self._ray.remote(num_cpus=self._threads)(_Actor)
        self._new_actor: Callable[[], Any] = lambda: kind.remote(*arguments, self._threads)
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_own_cluster:
            self._ray.shutdown()
            return
        for actor in [*self._starting.values(), *self._idle, *(actor for actor, _ in self._busy.values())]:
            self._ray.kill(actor)

    def start(self, tasks: int) -> None:
        """Start actors for this many tasks, and return when one of them is ready. `run` does so by itself.

        Raises RuntimeError if actors cannot start.
        """
        with end_on_sigterm():
            while not self._idle:
                self._start_actors(tasks)
                finished, _ = self._ray.wait([*self._starting], num_returns=1, timeout=POLL_SECONDS)
                for reference in finished:
                    self._end_start(reference)

    def run(self, tasks: Sequence[Any], name: Callable[[int], str] = task_name) -> Iterator[tuple[int, Any]]:
        """(position, result) of every task, in the order in which tasks finish.

        The first task that fails, or an interrupt, ends the run.

        Raises RuntimeError that names the task if the actors of one task keep dying, or if actors cannot start.
        """
        waiting, deaths = deque(range(len(tasks))), Counter[int]()
        with end_on_sigterm():
            while waiting or self._busy:
                self._start_actors(len(waiting))
                while waiting and self._idle:
                    actor, position = self._idle.pop(), waiting.popleft()
                    self._busy[actor.run.remote(tasks[position])] = actor, position
                references = [*self._busy, *(self._starting if waiting else ())]
                finished, _ = self._ray.wait(references, num_returns=1, timeout=POLL_SECONDS)
                for reference in finished:
                    if reference in self._starting:
                        self._end_start(reference)
                        continue
                    actor, position = self._busy.pop(reference)
                    try:
                        result = self._result(reference, name(position))
                    except _DeadActorError as error:
                        deaths[position] += 1
                        if deaths[position] > MAX_RETRIES:
                            raise RuntimeError(
                                f"workers died {deaths[position]} times in {name(position)}; the most common cause is "
                                "too little memory on the nodes"
                            ) from error.__cause__
                        waiting.appendleft(position)
                        continue
                    self._idle.append(actor)
                    yield position, result

    def _start_actors(self, waiting: int) -> None:
        """Start as many actors as there is work for, up to the limit."""
        count = len(self._starting) + len(self._idle) + len(self._busy)
        wanted = min(waiting + len(self._busy), self._limit or self._processors() // self._threads)
        for _ in range(count, max(wanted, 1)):
            actor = self._new_actor()
            self._starting[actor.ready.remote()] = actor

    def _processors(self) -> int:
        return int(self._ray.cluster_resources().get("CPU", 1))

    def _end_start(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts > MAX_RETRIES:
                raise RuntimeError(
                    f"workers cannot load what they need: {str(error).strip().splitlines()[-1]}; every node needs the "
                    "same packages, and the files that the model reads"
                ) from error
            return
        self._idle.append(actor)

    def _result(self, reference: Any, name: str) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            error.cause.add_note(f"This was raised in {name}.")
            raise error.cause from error  # the error of the work itself
        except (errors.RayActorError, errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
            raise _DeadActorError from error


class _DeadActorError(Exception):
    """An actor died while it ran a task."""


class _Actor:
    """One worker process of Ray."""

    def __init__(
        self, work: Callable[[Any, Any], Any], shared: Any, load: Callable[[Any], Any] | None, threads: int
    ) -> None:
        self.work, self.threads = work, threads
        with limit_threads(threads):
            self.loaded = shared if load is None else load(shared)

    def ready(self) -> None:
        """Returns once the actor is made."""

    def run(self, task: Any) -> Any:
        """The result of one task."""
        with limit_threads(self.threads):
            return self.work(self.loaded, task)

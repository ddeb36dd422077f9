"""One run of tasks in workers: who trains what, and what ends the run."""

from __future__ import annotations

import pickle
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

from upweight.engines.collected_warnings import CollectedWarning, show_once
from upweight.engines.job_file import UnsendableError, pickle_by_value, write_job
from upweight.engines.process_state import read_state
from upweight.engines.run_folder import run_folder
from upweight.engines.termination import end_on_sigterm
from upweight.engines.watchdog import Watchdog
from upweight.engines.worker import Worker, idle_workers, release, worker_for

MAX_DEATHS = 3  # how many workers may die at one task, or before their first
START_SECONDS = 2.0  # assumed for the start of a worker until one was measured
MAX_START_SECONDS = 600.0
POLL_SECONDS = 0.05  # between two checks of the running workers

Result = tuple[int, Any]


class WorkerTraceback(Exception):  # noqa: N818 - it is shown as the cause of an error
    """The place in a worker where an error was raised."""


class WorkerRun:
    """A list of tasks that workers run.

    Args:
        work: the function of a task.
        shared: what all tasks need.
        remaining: position → task; finished tasks are taken out.
        processes: the number of workers at most.
        threads: of linear algebra in each worker.
        name: of the task at a position.
    """

    def __init__(
        self,
        work: Callable[[Any, Any], Any],
        shared: Any,
        remaining: dict[int, Any],
        processes: int,
        threads: int,
        name: Callable[[int], str],
    ) -> None:
        self.job, self.remaining, self.name = (work, shared), remaining, name
        self.processes, self.threads = processes, threads
        self.queue, self.deaths = deque(remaining), Counter[int | None]()
        self.starting: dict[Worker, float] = {}  # worker → when it was started
        self.running: dict[Worker, tuple[int, float]] = {}  # worker → (position of its task, when it started)
        self.free: list[Worker] = []
        self.answers: SimpleQueue[Any] = SimpleQueue()
        self.shown_warnings = set[CollectedWarning]()
        self.watchdog, self.start_seconds, self.seconds = Watchdog(), START_SECONDS, 0.0

    def results(self) -> Iterator[Result]:
        """(position, result), as tasks finish.

        Raises:
            UnsendableError: workers cannot be started, or cannot get the job.
            RuntimeError: workers die or hang.
        """
        with run_folder() as folder, end_on_sigterm():
            self.path = folder / "job"
            write_job(self.path, (read_state(), *self.job))
            try:
                while self.remaining:
                    self._start_workers()
                    yield from self._next()
            finally:
                self._end_workers()

    def _next(self) -> Iterator[Result]:
        """Handle the next answer, and yield the results that it completes; before an error, the earlier ones."""
        try:
            answer = self.answers.get(timeout=POLL_SECONDS)
        except Empty:
            answer = None
        except (KeyboardInterrupt, SystemExit):
            yield from self._finished()
            raise
        if answer is None:
            self._check_silence()
            return
        worker, kind, value, location = answer
        if kind == "result":
            yield self._take(worker, value)
        elif kind == "ready":
            started = self.starting.pop(worker)
            if worker.is_new:
                self.start_seconds = time.monotonic() - started
            self.free.append(worker)
        elif kind == "died":
            self._requeue(worker, value)
        elif kind == "error":
            yield from self._finished()
            self._raise_error(worker, value, location)
        else:
            raise UnsendableError(f"a worker cannot read it: {pickle.loads(value)}")
        while self.free and self.queue:
            self._hand_out(self.free.pop(), self.queue.popleft())

    def _hand_out(self, worker: Worker, position: int) -> None:
        worker.send(pickle_by_value(self.remaining[position]), self.answers)
        self.running[worker] = position, time.monotonic()

    def _take(self, worker: Worker, value: bytes) -> Result:
        position, started = self.running.pop(worker)
        self.free.append(worker)
        seconds = time.monotonic() - started
        self.watchdog.end(seconds)
        self.seconds += seconds
        del self.remaining[position]
        result, collected = pickle.loads(value)
        show_once(collected, self.shown_warnings)
        return position, result

    def _finished(self) -> Iterator[Result]:
        """The results that have come by now."""
        while True:
            try:
                worker, kind, value, _ = self.answers.get_nowait()
            except Empty:
                return
            if kind == "result":
                yield self._take(worker, value)

    def _start_workers(self) -> None:
        while self._another_is_worth_it():
            try:
                worker = worker_for(self.threads)
            except OSError as error:  # too many processes, too little memory
                self.processes = len(self.starting) + len(self.running) + len(self.free)
                if not self.processes:
                    raise UnsendableError(f"no process can be started: {error}") from error
                return
            self.starting[worker] = time.monotonic()
            worker.send((str(self.path), self.threads), self.answers)

    def _another_is_worth_it(self) -> bool:
        """Whether the tasks that wait take longer than the start of another worker."""
        workers = len(self.starting) + len(self.running) + len(self.free)
        if workers >= min(self.processes, len(self.remaining)) or not self.queue:
            return False
        if not workers or idle_workers():
            return True
        now = time.monotonic()
        typical = self.seconds / max(self.watchdog.finished, 1)
        seconds = max([typical, *(now - started for _, started in self.running.values())])
        return seconds * len(self.queue) / workers > self.start_seconds

    def _requeue(self, worker: Worker, status: int) -> None:
        """Let another worker do the task of one that died. Raises RuntimeError if they keep dying at it."""
        self.starting.pop(worker, None)
        position = self.running.pop(worker, (None, 0.0))[0]
        if worker in self.free:
            self.free.remove(worker)
        self.deaths[position] += 1
        if position is not None:
            self.queue.appendleft(position)
        if self.deaths[position] < MAX_DEATHS:
            return
        where = "before they were ready" if position is None else f"in {self.name(position)}"
        raise RuntimeError(
            f"worker processes died {MAX_DEATHS} times {where}, {_cause(status)}; {len(self.remaining)} tasks were left"
        )

    def _raise_error(self, worker: Worker, value: bytes, location: str) -> NoReturn:
        """Raise the error of a task here."""
        position, _ = self.running.pop(worker)
        self.free.append(worker)
        try:
            error = pickle.loads(value)
        except Exception:  # an error that does not survive pickling
            error = RuntimeError(location.strip().rpartition("\n")[2])
        error.add_note(f"This was raised in {self.name(position)}.")
        raise error from WorkerTraceback(f"\n{location}")

    def _check_silence(self) -> None:
        """Raise RuntimeError if a worker hangs."""
        now = time.monotonic()
        for worker, (position, started) in self.running.items():
            if self.watchdog.hangs(worker.process.pid, started):
                raise RuntimeError(
                    f"{self.name(position)} hangs: its worker (process {worker.process.pid}) has run for "
                    f"{now - started:.0f} s, while {self.watchdog.finished} others took at most "
                    f"{self.watchdog.longest:.1f} s each; it was ended. Train it alone, with "
                    "uw.Retraining(processes=1), to see where it stops"
                )
        for worker, started in self.starting.items():
            if now - started > MAX_START_SECONDS:
                raise RuntimeError(
                    f"a worker (process {worker.process.pid}) was not ready after {MAX_START_SECONDS:.0f} s, and was "
                    "ended; use uw.Retraining(processes=1)"
                )

    def _end_workers(self) -> None:
        """End the workers that are busy, and keep the others for the next call."""
        busy = [*self.starting, *self.running]
        for worker in busy:
            worker.kill()
        for worker in self.free:
            worker.send(None)
            release(worker)
        for worker in busy:
            worker.stop()


def _cause(status: int) -> str:
    """Why a process ended with this status, and what to try."""
    if status >= 0:
        return f"by ending themselves with exit status {status} (a call of os._exit, or a fatal error of a library)"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name in ("SIGKILL", "SIGTERM"):
        return f"ended from outside ({name}); the most common cause is too little memory: use fewer processes"
    return f"by a crash of compiled code ({name})"

"""A worker: another process that runs tasks, kept between calls; the only file that starts processes.

Workers are new processes, never forks: a fork would inherit the locks of thread pools without their threads, and wait
for them for ever.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from weakref import WeakSet

from upweight.engines.process_state import environment
from upweight.engines.worker_program import BOOTSTRAP

IDLE_SECONDS = 120.0  # a worker without work ends after this time
HAS_GROUPS = hasattr(os, "killpg")  # a worker and all that it starts are one group, which ends together

# Ends the groups of all workers when its own standard input ends, with the process that started it. A worker notices
# the same by itself, but not while it is inside a library that holds Python's lock.
GUARD = """
import os, signal, sys
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class Worker:
    """A process, and the thread that talks to it.

    Args:
        threads: of its linear algebra.

    Attributes:
        is_new: whether it has served no job yet.
        setting: another process with the same value computes the same.
        started: when, in seconds since the epoch.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, threads: int) -> None:
        self.is_new, self._owner = True, os.getpid()
        self.setting, self.started = _setting(threads), time.time()
        self.process = subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(threads),
            process_group=0 if HAS_GROUPS else None,
            creationflags=0 if HAS_GROUPS else subprocess.CREATE_NEW_PROCESS_GROUP,  # type: ignore[attr-defined]
        )
        _guard.tell(f"+{self.process.pid}")
        _living.add(self)
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._inbox.put((list(sys.path), None))
        self._thread = threading.Thread(target=self._serve, daemon=True, name="upweight worker")
        self._thread.start()

    def send(self, request: Any, answers: SimpleQueue[Any] | None = None) -> None:
        """Send a request. (this worker, kind, value, location) is put into `answers` when the worker answers.

        The kind is "died" if it ended, with its exit status.
        """
        self._inbox.put((request, answers))

    def kill(self) -> None:
        """End the process and all that it started, whatever it is doing."""
        if self._owner != os.getpid() or self.process.poll() is not None:
            return
        try:
            if HAS_GROUPS:
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        except OSError:  # it ended by itself
            pass

    def stop(self) -> None:
        """Kill the worker, and wait for its end."""
        self.kill()
        self._inbox.put(None)
        if self._owner == os.getpid():
            self._thread.join(5)

    def _serve(self) -> None:
        """Pass requests and answers on until the process ends."""
        assert self.process.stdin is not None and self.process.stdout is not None
        answers = None
        try:
            while (message := self._next_message()) is not None:
                request, answers = message
                pickle.dump(request, self.process.stdin)
                self.process.stdin.flush()
                if answers is not None:
                    answers.put((self, *pickle.load(self.process.stdout)))
        except (OSError, EOFError, pickle.UnpicklingError):
            pass
        self.kill()
        status = self.process.wait()
        _guard.tell(f"-{self.process.pid}")
        if answers is not None:
            answers.put((self, "died", status, ""))
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what was not yet written
                pipe.close()

    def _next_message(self) -> Any:
        while True:
            try:
                return self._inbox.get(timeout=IDLE_SECONDS)
            except Empty:
                if _idle.remove(self):
                    return None


class _Idle:
    """Workers without work, which the next call can use."""

    def __init__(self) -> None:
        self._lock, self._workers = threading.Lock(), list[Worker]()

    def add(self, worker: Worker) -> None:
        with self._lock:
            self._workers.append(worker)

    def remove(self, worker: Worker) -> bool:
        """Whether the worker was idle; it no longer is."""
        with self._lock:
            was_idle = worker in self._workers
            if was_idle:
                self._workers.remove(worker)
        return was_idle

    def take(self, threads: int) -> Worker | None:
        """An idle worker that would compute what a new one would; others are ended."""
        while True:
            with self._lock:
                if not self._workers:
                    return None
                worker = self._workers.pop()
            if worker.process.poll() is None and worker.setting == _setting(threads) and not _changed(worker.started):
                return worker
            worker.stop()

    def __len__(self) -> int:
        return len(self._workers)

    def stop_all(self) -> None:
        """End all idle workers."""
        with self._lock:
            workers, self._workers = self._workers, []
        for worker in workers:
            worker.stop()


class _Guard:
    """The process that ends all workers when this process ends, also when it is killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """End the process, and with it the groups that it still has."""
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError, subprocess.TimeoutExpired):
                self.process.stdin.close()
                self.process.wait(5)
            self.process = None

    def tell(self, line: str) -> None:
        """Add (+) or remove (−) the group of a worker."""
        if not HAS_GROUPS:
            return
        with self._lock:
            try:
                if self.process is None or self.process.poll() is not None:
                    self.process = _start_guard()
                assert self.process.stdin is not None
                self.process.stdin.write(f"{line}\n".encode())
                self.process.stdin.flush()
            except OSError:  # workers also notice by themselves that this process ended
                pass


_idle, _guard = _Idle(), _Guard()
_living: WeakSet[Worker] = WeakSet()


def worker_for(threads: int) -> Worker:
    """An idle worker, or a new one. Raises OSError if no process can be started."""
    return _idle.take(threads) or Worker(threads)


def release(worker: Worker) -> None:
    """Keep a worker for the next call."""
    worker.is_new = False
    _idle.add(worker)


def idle_workers() -> int:
    """How many workers wait for the next call."""
    return len(_idle)


def stop_idle_workers() -> None:
    """End the workers that wait for the next call."""
    _idle.stop_all()


def _start_guard() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", "-c", GUARD]
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=nothing, stderr=nothing, process_group=0)


def _setting(threads: int) -> tuple[Any, ...]:
    """State of a process that is set at its start and does not change."""
    return threads, os.getcwd(), tuple(sys.path), sys.executable


def _changed(since: float) -> bool:
    """Whether a file of the user's modules was written after this time: a worker would run the older version."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not file.startswith((sys.prefix, sys.base_prefix)):
            try:
                if Path(file).stat().st_mtime > since:
                    return True
            except OSError:
                continue
    return False


def _forget_workers() -> None:
    """Close the pipes of workers in a fork of this process: the fork has no workers, and its copies keep them alive."""
    global _idle, _guard
    processes = [*(worker.process for worker in _living), *filter(None, [_guard.process])]
    nothing = os.open(os.devnull, os.O_RDWR)
    for pipe in (pipe for process in processes for pipe in (process.stdin, process.stdout)):
        if pipe is not None and not pipe.closed:
            os.dup2(nothing, pipe.fileno(), inheritable=False)
    os.close(nothing)
    _idle, _guard = _Idle(), _Guard()
    _living.clear()


def _end() -> None:
    """End everything with this process."""
    stop_idle_workers()
    _guard.stop()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)

"""The program of a worker process: it reads requests from its caller, trains, and writes the answers."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

from upweight.core.change_checks import one_change_check
from upweight.core.threads import limit_threads
from upweight.engines.collected_warnings import collect_warnings
from upweight.engines.job_file import read_job, to_caller
from upweight.engines.process_state import apply_state

# The first lines of the process. Requests and answers move away from standard input and output, which belong to the
# user's code: what that prints goes to standard error.
BOOTSTRAP = """
import os, pickle, sys
requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
os.dup2(os.open(os.devnull, os.O_RDWR), 0)
os.dup2(2, 1)
sys.path[:] = pickle.load(requests)
from upweight.engines.worker_program import main
main(requests, answers)
"""
is_worker = False  # whether this process is a worker


def main(requests: BinaryIO, answers: BinaryIO) -> None:
    """Serve jobs until the caller ends."""
    global is_worker  # noqa: PLW0603
    is_worker = True
    for name in ("SIGINT", "SIGTTOU"):  # the caller decides what an interrupt ends
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_read, args=(requests, inbox), daemon=True).start()
    while True:
        _serve_job(inbox, answers, *inbox.get())


def _read(requests: BinaryIO, inbox: SimpleQueue[Any]) -> None:
    """Pass requests on. When the caller ends, end this process and all that it started, whatever it is doing."""
    try:
        while True:
            inbox.put(pickle.load(requests))
    finally:
        if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(1)


def _serve_job(inbox: SimpleQueue[Any], answers: BinaryIO, path: str, threads: int) -> None:
    """Read a job, then run its tasks until a request without a task."""
    try:
        state, work, shared = read_job(Path(path))
        apply_state(state)
        os.environ["TMPDIR"] = tempfile.tempdir = os.path.dirname(path)  # removed by the caller, whatever happens here
    except Exception as error:
        _answer(answers, "unreadable", f"{type(error).__name__}: {error}")
        inbox.get()
        return
    _answer(answers, "ready", None)
    with one_change_check():
        while (task := inbox.get()) is not None:
            try:
                with limit_threads(threads), collect_warnings() as collected:
                    result = work(shared, pickle.loads(task))
                _answer(answers, "result", (result, collected))
            except BaseException as error:
                _answer(answers, "error", error)


def _answer(answers: BinaryIO, kind: str, value: Any) -> None:
    """Write (kind of answer, pickled value, where an error comes from)."""
    sys.stdout.flush()
    location = "".join(traceback.format_exception(value)) if isinstance(value, BaseException) else ""
    try:
        pickled = to_caller(value)
    except Exception as error:
        reason = str(value) if location else f"a result cannot be sent back: {type(error).__name__}: {error}"
        kind, pickled = "error", to_caller(RuntimeError(reason))
    pickle.dump((kind, pickled, location), answers)
    answers.flush()

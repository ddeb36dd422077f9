"""Ctrl-C and SIGTERM end a command with one sentence and the usual exit status."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

from upweight.retraining.interruption import Unfinished

UNRESPONSIVE_SECONDS = 0.7  # seconds after which a command no longer waits for a library to return


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def listen_for_signals() -> None:
    """Let SIGINT and SIGTERM end this process within a second, also while a library computes.

    Python acts on a signal only when the main thread returns from compiled code. So another thread reads signals too,
    and ends the process if the main thread does not act on them.
    """
    acted = threading.Event()

    def act(number: int, _: Any) -> NoReturn:
        acted.set()
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    handled = [
        number
        for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))
        if signal.getsignal(number) is default  # ignored signals stay ignored
    ]
    for number in handled:
        signal.signal(number, act)
    read, write = socket.socketpair()
    write.setblocking(False)
    signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_if_unresponsive, args=(read, write, acted, handled), daemon=True).start()


def _end_if_unresponsive(read: socket.socket, _: socket.socket, acted: threading.Event, handled: list[Any]) -> None:
    while number := read.recv(1):
        if number[0] in handled and not acted.wait(UNRESPONSIVE_SECONDS):
            has_folder = any(argument.startswith("--folder") for argument in sys.argv)
            print(f"\n{stop_sentence(None, has_folder)}", file=sys.stderr, flush=True)
            os._exit(128 + number[0])


def stop_sentence(unfinished: Unfinished | None, has_folder: bool) -> str:
    """A sentence about what was saved, and how to continue. `has_folder`: the command has the option --folder."""
    if unfinished is None:
        again = "; trainings saved in its --folder are not repeated" if has_folder else ""
        return f"Stopped before the end. Run the same command again{again}."
    done = f"Stopped after {unfinished.done} of {unfinished.total} trainings"
    if unfinished.folder is not None:
        return f"{done}. They are saved in {unfinished.folder}: run the same command again to continue from there."
    how = " with --folder DIR, which saves every training when it ends" if has_folder else ""
    return f"{done}, which are not saved. Run the command again{how}."


def exit_status(error: BaseException) -> int:
    """The exit status of a process that a signal ended."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)

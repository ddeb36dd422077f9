"""SIGTERM ends a run as an error would."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


@contextmanager
def end_on_sigterm() -> Iterator[None]:
    """SIGTERM raises SystemExit(143) inside, so that workers and temporary files end with this process.

    A handler of the user's stays as it is. Python lets only the main thread handle signals.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit_terminated)
    try:
        yield
    finally:
        if (
            signal.getsignal(signal.SIGTERM) is _exit_terminated
            and threading.current_thread() is threading.main_thread()
        ):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit_terminated(number: int, _: Any) -> NoReturn:
    raise SystemExit(128 + number)

"""A value that is computed once: when it is first needed, or earlier in a background thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """The result of a function that is called at most once, from any thread."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function, self._lock, self._results = function, threading.Lock(), list[T]()

    def start(self) -> None:
        """Compute it in the background."""
        threading.Thread(target=self.result, daemon=True, name="upweight-viewer").start()

    def result(self) -> T:
        """The value; waits for a thread that computes it."""
        with self._lock:
            if not self._results:
                self._results.append(self._function())
            return self._results[0]

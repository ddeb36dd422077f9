"""A cache of results computed from the last few data sets; it notices when data were changed in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from upweight.core.examples import Examples

T = TypeVar("T")


class DataCache(Generic[T]):
    """The results of a computation for the most recent data sets.

    Args:
        size: number of data sets.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[
            int, tuple[Examples, int, T]
        ] = {}  # id → (examples, which keep the id taken; checksum; result)

    def __getstate__(self) -> dict[str, Any]:
        return {"_size": self._size, "entries": list(self._entries.values())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._size = state["_size"]
        self._entries = {id(entry[0]): entry for entry in state["entries"]}  # in this process

    def get_or_make(self, examples: Examples, make: Callable[[], T]) -> T:
        """The cached result for these examples; calls `make` if there is none or if they were changed in place."""
        contents = examples.checksum()
        cached = self._unchanged(examples, contents)
        if cached is not None:
            return cached[2]
        self._entries.pop(id(examples), None)
        result = make()
        if contents is not None:
            while len(self._entries) >= self._size:
                self._entries.pop(next(iter(self._entries)))
            self._entries[id(examples)] = examples, contents, result
        return result

    def get(self, examples: Examples) -> T | None:
        """The cached result for these examples; None if there is none or if they were changed in place."""
        cached = self._unchanged(examples, examples.checksum()) if id(examples) in self._entries else None
        return None if cached is None else cached[2]

    def _unchanged(self, examples: Examples, contents: int | None) -> tuple[Examples, int, T] | None:
        cached = self._entries.get(id(examples))
        return cached if cached is not None and contents is not None and cached[1] == contents else None

"""What an object keeps in a file: named arrays and facts, of which parts of the object each have their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from upweight.core.archive import stored_array


@dataclass(frozen=True, eq=False)
class SavedState:
    """Arrays, and facts that JSON can hold, from which an object is made again without its expensive work.

    Attributes:
        arrays: name → array of numbers.
        facts: everything else.
    """

    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Mapping[str, SavedState], facts: Mapping[str, Any] | None = None) -> SavedState:
        """The states of the parts of an object, by the name of the part, and facts of its own."""
        arrays = {f"{part}.{name}": array for part, state in parts.items() for name, array in state.arrays.items()}
        return cls(arrays, {**(facts or {}), **{part: dict(state.facts) for part, state in parts.items()}})

    def part(self, name: str) -> SavedState:
        """The state of one part, as it was joined."""
        start = f"{name}."
        arrays = {key.removeprefix(start): array for key, array in self.arrays.items() if key.startswith(start)}
        return SavedState(arrays, self.facts.get(name, {}))

    def array(self, name: str, shape: tuple[int | None, ...], kinds: str = "f") -> NDArray[Any]:
        """The array of this name. Raises ValueError if it is missing or not as it was written (see `stored_array`)."""
        return stored_array(self.arrays, name, shape, kinds)

    def __bool__(self) -> bool:
        return bool(self.arrays or self.facts)


NOTHING_SAVED = SavedState()

"""FittedState: the objects that a fitted estimator holds, by which it is noticed that it was fitted again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from upweight.core.contents import relevant

PLAIN = (int, float, complex, str, bytes)


class FittedState:
    """What an estimator and the steps inside it hold, the very objects: fitting again puts others in their place.

    Two of these are equal if nothing that both hold was replaced. What use adds does not count. Estimators without
    `get_params` hold nothing that is looked at.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, estimator: Any) -> None:
        self._objects = {
            (place, name): held for place, part in enumerate(_parts(estimator)) for name, held in _attributes(part)
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FittedState):
            return NotImplemented
        theirs = other._objects
        return all(_is_same(held, theirs.get(key, held)) for key, held in self._objects.items())


def _is_same(one: Any, other: Any) -> bool:
    """Whether these are one object, or equal numbers or texts, of which a copy has others."""
    return one is other or (type(one) in PLAIN and type(one) is type(other) and repr(one) == repr(other))


def _parts(estimator: Any) -> Iterator[Any]:
    """The estimator, then every estimator among its parameters and theirs."""
    if hasattr(estimator, "get_params"):
        yield estimator
        yield from (part for _, part in sorted(estimator.get_params().items()) if hasattr(part, "get_params"))


def _attributes(part: Any) -> Iterator[tuple[str, Any]]:
    yield from relevant(type(part), getattr(part, "__dict__", {})).items()

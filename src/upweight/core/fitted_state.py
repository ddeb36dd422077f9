"""The state of a fitted estimator, by which the library notices that it was fitted again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from upweight.core.contents import relevant

PLAIN = (int, float, complex, str, bytes)


class FittedState:
    """The attributes of an estimator and of the steps inside it. Fitting again replaces these objects.

    Two states are equal if no attribute that both have was replaced. Attributes that use adds do not count. The state
    of an estimator without `get_params` is empty.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, estimator: Any) -> None:
        self._objects = {
            (position, name): value
            for position, part in enumerate(_parts(estimator))
            for name, value in _attributes(part)
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FittedState):
            return NotImplemented
        others = other._objects
        return all(_is_same(value, others.get(key, value)) for key, value in self._objects.items())


def _is_same(value: Any, other: Any) -> bool:
    """Whether these are the same object, or equal numbers or texts (a copied estimator has copies of them)."""
    return value is other or (type(value) in PLAIN and type(value) is type(other) and repr(value) == repr(other))


def _parts(estimator: Any) -> Iterator[Any]:
    """The estimator and, recursively, every estimator among its parameters."""
    if hasattr(estimator, "get_params"):
        yield estimator
        yield from (part for _, part in sorted(estimator.get_params().items()) if hasattr(part, "get_params"))


def _attributes(part: Any) -> Iterator[tuple[str, Any]]:
    yield from relevant(type(part), getattr(part, "__dict__", {})).items()

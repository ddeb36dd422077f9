"""Results that draw themselves: `.plot()` of a result is its display, which another room holds."""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar


class Plottable:
    """A result with a display.

    Attributes:
        _display: name of the public class that draws it, and of the class method that takes it.
    """

    _display: ClassVar[tuple[str, str]]

    def plot(self, *args: Any, **settings: Any) -> Any:
        """Draw this with matplotlib: what the display of this result takes, such as `ax=`; returns the display."""
        name, from_result = self._display
        return getattr(getattr(import_module("upweight"), name), from_result)(self, *args, **settings)

"""The query part of an address (after the ?), as numbers."""

from __future__ import annotations

from collections.abc import Mapping


def whole_number(parameters: Mapping[str, str], name: str, default: int | None = None) -> int:
    """The whole number of this name. Raises ValueError for anything else."""
    text = parameters.get(name, "" if default is None else str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise ValueError(f"expected a whole number as {name}, got {text!r:.40}")
    return int(text)

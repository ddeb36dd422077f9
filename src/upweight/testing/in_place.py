"""Changes in place, as a user may make them to the inputs that examples hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from upweight.core.input_kinds import columns_of, is_sparse

Undo = Callable[[], None]


def change(x: Any) -> Undo:
    """Give the first example of x the inputs of another one, in place; the returned function undoes it.

    Raises TypeError for a kind of inputs that cannot be changed in place.
    """
    if isinstance(x, list):
        return _first_item(x)
    if is_sparse(x):
        return _entries(x.data)
    if columns_of(x) is not None and hasattr(x, "iloc"):
        before = x.iloc[0].copy()
        x.iloc[0] = x.iloc[_first_position(lambda i: not x.iloc[i].equals(before), len(x))]

        def put_back() -> None:
            x.iloc[0] = before

        return put_back
    if hasattr(x, "__setitem__") and hasattr(x, "shape"):
        return _first_row(x)
    raise TypeError(f"inputs of the kind {type(x).__name__} cannot be changed in place")


def _first_item(x: list[Any]) -> Undo:
    """Replace the first item by another one; if items are mappings, change the values inside the first."""
    if isinstance(x[0], dict):
        name = next(iter(x[0]))
        return _first_row(x[0][name])
    before = x[0]
    x[0] = x[_first_position(lambda i: not np.array_equal(x[i], before), len(x))]

    def put_back() -> None:
        x[0] = before

    return put_back


def _first_row(x: Any) -> Undo:
    """Replace the first row of an array or tensor by another one; if all rows are equal, add 1 to it."""
    before = x[:1].clone() if hasattr(x, "clone") else x[:1].copy()
    for other in range(1, len(x)):
        if bool((x[other : other + 1] != before).any()):
            x[:1] = x[other : other + 1]
            break
    else:
        x[:1] = before + 1

    def put_back() -> None:
        x[:1] = before

    return put_back


def _entries(data: Any) -> Undo:
    """Double all entries of a sparse matrix."""
    before = data.copy()
    data *= 2

    def put_back() -> None:
        data[:] = before

    return put_back


def _first_position(differs: Callable[[int], bool], n: int) -> int:
    return next(position for position in range(1, n) if differs(position))

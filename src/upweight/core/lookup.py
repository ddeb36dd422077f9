"""Look up by id, with an error that shows what the ids look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Id

T = TypeVar("T")
SHOWN_IDS = 3


def position_of(ids: NDArray[Any], identifier: Id, noun: str = "query") -> int:
    """The position of an id. Raises KeyError if there is none."""
    positions = np.flatnonzero(ids == identifier)
    if len(positions) == 0:
        raise KeyError(_unknown(ids, identifier, noun))
    return int(positions[0])


def entry_of(entries: Mapping[Id, T], query: Id, ids: NDArray[Any]) -> T:
    """The entry of a query. Raises KeyError if there is none."""
    if query not in entries:
        raise KeyError(_unknown(ids, query, "query"))
    return entries[query]


def _unknown(ids: NDArray[Any], identifier: Id, noun: str) -> str:
    return f"no {noun} has the id {identifier!r}; {noun} ids look like {ids[:SHOWN_IDS].tolist()}"

"""The training examples that a removal may contain: ids, or those that share a value with the queries."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples, Id
from upweight.core.weights import weighted_positions

MAX_NAMED = 10  # values that a message names


def removable(train: Examples, candidates: Sequence[Id] | str | None, queries: Examples) -> NDArray[np.intp]:
    """Positions of the examples of positive weight that may be removed. Raises ValueError if there is none."""
    weighted = weighted_positions(train)
    if candidates is None:
        return weighted
    if isinstance(candidates, str):
        column = _column(train, candidates)
        value = np.unique(_column(queries, candidates))
        if len(value) > 1:
            raise ValueError(f"expected queries with one value of {candidates!r}, got {value.tolist()[:MAX_NAMED]}")
        chosen: NDArray[np.intp] = weighted[column[weighted] == value[0]]
        if not len(chosen):
            raise ValueError(
                f"no training example has the queries' {candidates} = {value[0]}, so nothing can be removed that would "
                "change what is seen; ask for another one, or pass candidates= with ids"
            )
        return chosen
    ids = np.asarray(candidates)
    chosen = np.intersect1d(train.positions(ids), weighted) if len(ids) else np.empty(0, dtype=np.intp)
    if not len(chosen):
        raise ValueError(
            "expected candidates that can be removed, got none with a weight above 0: nothing would change"
        )
    return chosen


def _column(examples: Examples, name: str) -> NDArray[Any]:
    """A column of the inputs by its name."""
    if examples.names is None:
        raise ValueError(
            f"expected ids, or examples whose columns have names, got candidates={name!r}; pass Examples(names=…) for "
            "the training set and the queries"
        )
    if name not in examples.names:
        raise ValueError(
            f"expected ids, or the name of a column among {_some(examples.names)}, got candidates={name!r}"
            f"{_near(name, examples.names)}"
        )
    x, place = examples.x, examples.names.index(name)
    column: NDArray[Any] = np.asarray(x[name] if hasattr(x, "columns") else x[:, place])
    return column


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return f"{list(names[:MAX_NAMED])}{more}"


def _near(name: str, names: Sequence[str]) -> str:
    """The name that was probably meant, as the end of a sentence."""
    near = get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def copies_of(queries: Examples, train: Examples, positions: NDArray[np.intp]) -> list[Id]:
    """Ids of candidates whose inputs are those of a query, for inputs that are rows of numbers."""
    x, y = queries.x, train.x
    if not (isinstance(x, np.ndarray) and isinstance(y, np.ndarray)) or x.ndim != 2 or not x.shape[1]:
        return []
    if x.shape[1:] != y.shape[1:] or x.dtype.kind not in "iufb" or y.dtype.kind not in "iufb":
        return []
    same = (y[positions][:, None] == x[None]).all(axis=2).any(axis=1)
    copies: list[Id] = train.ids[positions[same]].tolist()
    return copies

"""Groups of training examples by columns, and slices of queries by ids, masks or mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.explain import confident_mistakes
from upweight.core.examples import Examples, is_missing
from upweight.core.input_kinds import columns_of
from upweight.core.model import Measurable
from upweight.core.weights import weighted_positions

MANY = 10  # distinct numbers from which a column is cut into parts
PARTS = 5


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups by name, as positions in the training set; `notes` says what was left out."""

    names: tuple[str, ...]
    members: tuple[NDArray[np.intp], ...]
    notes: tuple[str, ...]


def groups_of(train: Examples, by: Mapping[str, Any] | Sequence[str] | str, smallest: int, classes: bool) -> Groups:
    """One group per value of every column, named `column = value`; groups may overlap across columns.

    Examples of weight 0 are in none. Groups of fewer than `smallest` are left out, and with `classes` those that are
    all there is of a label.

    Raises:
        KeyError: an unknown column.
        ValueError: a column of another length, or no group that is large enough and not everything.
    """
    columns = dict(by) if isinstance(by, Mapping) else dict.fromkeys([by] if isinstance(by, str) else by)
    names: list[str] = []
    members: list[NDArray[np.intp]] = []
    left_out = {
        "of fewer than " + str(smallest): 0,
        "that hold a whole class (no model can be trained without it)": 0,
    }
    few, whole = left_out
    counted = weighted_positions(train)
    for column, values in columns.items():
        array = _column(train, column) if values is None else np.asarray(values)
        if array.ndim != 1 or len(array) != len(train):
            raise ValueError(
                f"expected one value of {column!r} per training example ({len(train)},), got shape {array.shape}"
            )
        for value, where in ((value, counted[inside]) for value, inside in _parts(array[counted])):
            if len(where) < smallest:
                left_out[few] += 1
            elif classes and _loses_a_class(train, where):
                left_out[whole] += 1
            elif len(where) < len(counted):
                names.append(f"{column} {value}")
                members.append(where)
    if not names:
        raise ValueError(
            f"no column of {list(columns)} makes a group of at least {smallest} training examples without which a "
            "model could still be trained"
        )
    notes = tuple(f"Groups {why} are not in the table: {count}." for why, count in left_out.items() if count)
    return Groups(tuple(names), tuple(members), notes)


def _loses_a_class(train: Examples, where: NDArray[np.intp]) -> bool:
    if train.y is None:
        return False
    counted = weighted_positions(train)
    return len(np.unique(train.y[np.setdiff1d(counted, where)])) < len(np.unique(train.y[counted]))


def slice_of(model: Measurable, queries: Examples, failing: Any) -> dict[str, list[Any]]:
    """Name → query ids. Raises ValueError for a slice that matches nothing, KeyError for an unknown query."""
    if failing is None:
        wrong = confident_mistakes(model, queries, k=len(queries))
        if not wrong:
            raise ValueError("the model gets every query right, so no slice fails; pass failing= with ids or a mask")
        return {"mistakes": wrong}
    named = dict(failing) if isinstance(failing, Mapping) else {"slice": failing}
    if not named:
        raise ValueError("expected at least one slice, e.g. failing={'children': mask}")
    found = {}
    for name, given in named.items():
        array = np.atleast_1d(np.asarray(given))
        if array.dtype == bool:
            if len(array) != len(queries):
                raise ValueError(f"expected a mask with one entry per query ({len(queries)}), got {len(array)}")
            ids = queries.ids[array].tolist()
        else:
            ids = queries.ids[queries.positions(array)].tolist() if array.size else []
        if not ids:
            raise ValueError(f"slice {name!r} matches none of the {len(queries)} queries; check its condition")
        found[str(name)] = list(dict.fromkeys(ids))
    return found


def _column(train: Examples, name: str) -> NDArray[Any]:
    """A column of the training set by name: the label, a column of a frame, or a named column of an array."""
    if name == "label" and train.y is not None and name not in (train.names or []):
        return np.array([str(train.labels.get(v, v)) for v in train.y.tolist()])
    shown = [x for x in (train.x, train.shown) if columns_of(x) is not None and name in (columns_of(x) or [])]
    if shown:
        return np.asarray(shown[0][name])
    if train.names is not None and name in train.names and getattr(train.x, "ndim", 0) == 2:
        column = train.x[:, [train.names.index(name)]]
        return np.asarray(column.toarray() if hasattr(column, "toarray") else column).ravel()
    known = [*(train.names or columns_of(train.shown) or []), "label"]
    raise KeyError(f"the training set has no column {name!r}; there are {known[:20]}, or pass {{name: values}}")


def _parts(values: NDArray[Any]) -> list[tuple[str, NDArray[np.intp]]]:
    """(value as text, positions) of every value; numbers with many values in fifths."""
    listed = values.tolist()
    missing = np.array([is_missing(v) or v in (np.inf, -np.inf) for v in listed])
    there = np.flatnonzero(~missing)
    known = np.array([listed[i] for i in there])
    if known.dtype.kind not in "iuf":
        known = known.astype(str)
        found = [(f"= {v}", there[known == v]) for v in np.unique(known)]
    elif len(distinct := np.unique(known)) > MANY:
        edges = np.unique(np.quantile(known.astype(np.float64), np.linspace(0, 1, PARTS + 1)[1:-1]))
        part = np.searchsorted(edges, known.astype(np.float64))
        found = [(_between(edges, p), there[part == p]) for p in range(len(edges) + 1)]
    else:
        found = [(f"= {v:g}", there[known == v]) for v in distinct.tolist()]
    return [*found, ("= missing", np.flatnonzero(missing))] if missing.any() else found


def _between(edges: NDArray[np.float64], part: int) -> str:
    if part == 0:
        return f"≤ {edges[0]:.4g}"
    return f"> {edges[-1]:.4g}" if part == len(edges) else f"from {edges[part - 1]:.4g} to {edges[part]:.4g}"

"""Groups of training examples by the values of columns, and slices of queries by ids, masks or mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.query_choice import confident_mistakes
from upweight.core.example_columns import is_missing
from upweight.core.examples import Examples
from upweight.core.input_kinds import columns_of
from upweight.core.model import Measurable
from upweight.core.row_index import require_index_of_ids
from upweight.core.weights import weighted_positions

MAX_DISTINCT_NUMBERS = 10  # a column with more is cut into quantile bins
QUANTILE_BINS = 5


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups by name, as positions in the training set; `notes` reports which groups were left out."""

    names: tuple[str, ...]
    members: tuple[NDArray[np.intp], ...]
    notes: tuple[str, ...]


def groups_of(train: Examples, by: Mapping[str, Any] | Sequence[str] | str, smallest: int, classes: bool) -> Groups:
    """One group per value of every column, named `column = value`. Groups of different columns may overlap.

    Examples of weight 0 are in no group. Groups of fewer than `smallest` examples are left out. With
    `classes` (labels are classes), so are groups that hold all examples of a class.

    Raises:
        KeyError: an unknown column.
        ValueError: a column of another length, or no group that is large enough and smaller than the training set.
    """
    columns = dict(by) if isinstance(by, Mapping) else dict.fromkeys([by] if isinstance(by, str) else by)
    names: list[str] = []
    members: list[NDArray[np.intp]] = []
    left_out = {
        "of fewer than " + str(smallest): 0,
        "that hold a whole class (no model can be trained without it)": 0,
    }
    too_small, whole_class = left_out
    weighted = weighted_positions(train)
    for column, values in columns.items():
        require_index_of_ids(column, values, train.ids)
        array = column_of(train, column) if values is None else np.asarray(values)
        if array.ndim != 1 or len(array) != len(train):
            raise ValueError(
                f"expected one value of {column!r} per training example ({len(train)},), got shape {array.shape}"
            )
        for value, positions in ((value, weighted[inside]) for value, inside in values_of(array[weighted])):
            if len(positions) < smallest:
                left_out[too_small] += 1
            elif classes and _loses_a_class(train, positions):
                left_out[whole_class] += 1
            elif len(positions) < len(weighted):
                names.append(f"{column} {value}")
                members.append(positions)
    if not names:
        raise ValueError(
            f"no column of {list(columns)} makes a group of at least {smallest} training examples without which a "
            "model could still be trained"
        )
    notes = tuple(f"Groups {why} are not in the table: {count}." for why, count in left_out.items() if count)
    return Groups(tuple(names), tuple(members), notes)


def _loses_a_class(train: Examples, positions: NDArray[np.intp]) -> bool:
    """Whether the training set without these examples has none left of some class."""
    if train.y is None:
        return False
    weighted = weighted_positions(train)
    return len(np.unique(train.y[np.setdiff1d(weighted, positions)])) < len(np.unique(train.y[weighted]))


def slice_of(model: Measurable, queries: Examples, failing: Any) -> dict[str, list[Any]]:
    """Name → query ids. Raises ValueError if a slice matches no query, KeyError for an unknown query id."""
    if failing is None:
        mistakes = confident_mistakes(model, queries, k=len(queries))
        if not mistakes:
            raise ValueError("the model gets every query right, so no slice fails; pass failing= with ids or a mask")
        return {"mistakes": mistakes}
    named = dict(failing) if isinstance(failing, Mapping) else {"slice": failing}
    if not named:
        raise ValueError("expected at least one slice, e.g. failing={'children': mask}")
    slices = {}
    for name, ids_or_mask in named.items():
        array = np.atleast_1d(np.asarray(ids_or_mask))
        if array.dtype == bool:
            require_index_of_ids("failing", ids_or_mask, queries.ids)
            if len(array) != len(queries):
                raise ValueError(f"expected a mask with one entry per query ({len(queries)}), got {len(array)}")
            ids = queries.ids[array].tolist()
        else:
            ids = queries.ids[queries.positions(array)].tolist() if array.size else []
        if not ids:
            raise ValueError(f"slice {name!r} matches none of the {len(queries)} queries; check its condition")
        slices[str(name)] = list(dict.fromkeys(ids))
    return slices


def column_of(train: Examples, name: str) -> NDArray[Any]:
    """A column of the training set by name: the label, a column of a data frame, or a named column of an array.

    Raises:
        KeyError: an unknown column.
    """
    if name == "label" and train.y is not None and name not in (train.names or []):
        return np.array([str(train.labels.get(v, v)) for v in train.y.tolist()])
    frames = [x for x in (train.x, train.shown) if columns_of(x) is not None and name in (columns_of(x) or [])]
    if frames:
        return np.asarray(frames[0][name])
    if train.names is not None and name in train.names and getattr(train.x, "ndim", 0) == 2:
        column = train.x[:, [train.names.index(name)]]
        return np.asarray(column.toarray() if hasattr(column, "toarray") else column).ravel()
    names = [*(train.names or columns_of(train.shown) or []), "label"]
    raise KeyError(f"the training set has no column {name!r}; the columns are {names[:20]}; or pass {{name: values}}")


def values_of(values: NDArray[Any], cut_by: int | None = None) -> list[tuple[str, NDArray[np.intp]]]:
    """(value as text, positions) of every value; a column of many distinct numbers is cut into fifths.

    `cut_by`: only this many first values decide whether and where it is cut; None for all.
    """
    listed = values.tolist()
    missing = np.array([is_missing(v) or v in (np.inf, -np.inf) for v in listed])
    present = np.flatnonzero(~missing)
    present_values = np.array([listed[i] for i in present])
    if present_values.dtype.kind not in "iuf":
        present_values = present_values.astype(str)
        members = [(f"= {v}", present[present_values == v]) for v in np.unique(present_values)]
    elif (
        len(np.unique(cutting := present_values[: int((present < (cut_by or len(values))).sum())]))
        > MAX_DISTINCT_NUMBERS
    ):
        edges = np.unique(np.quantile(cutting.astype(np.float64), np.linspace(0, 1, QUANTILE_BINS + 1)[1:-1]))
        bins = np.searchsorted(edges, present_values.astype(np.float64))
        members = [(_bin_name(edges, b), present[bins == b]) for b in range(len(edges) + 1)]
    else:
        members = [(f"= {v:.15g}", present[present_values == v]) for v in np.unique(present_values).tolist()]
    return [*members, ("= missing", np.flatnonzero(missing))] if missing.any() else members


def _bin_name(edges: NDArray[np.float64], number: int) -> str:
    if number == 0:
        return f"≤ {_edge(edges[0])}"
    if number == len(edges):
        return f"> {_edge(edges[-1])}"
    return f"from {_edge(edges[number - 1])} to {_edge(edges[number])}"


def _edge(value: float) -> str:
    """The number to four digits, with its whole part in full: the column may hold ids."""
    return f"{value:.0f}" if abs(value) >= 10_000 else f"{value:.4g}"

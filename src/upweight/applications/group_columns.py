"""The group of every training example and query in some columns, to compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.audit_results import UNKNOWN, GroupColumn
from upweight.applications.groups import column_of, values_of
from upweight.core.examples import Examples
from upweight.core.row_index import require_index_of_ids


def group_columns(
    train: Examples, queries: Examples, by: Mapping[str, Any] | Sequence[str] | str, query_groups: Mapping[str, Any]
) -> list[GroupColumn]:
    """The groups of every column. A column of many distinct numbers is cut into fifths of the training set.

    Args:
        train, queries: the examples.
        by: names of columns of both; or name → the groups of the training examples, as one value per example or as
            id → group.
        query_groups: name → the groups of the queries, in the same forms; for columns that are not in the queries.

    Raises:
        KeyError: a column that the training set lacks, an id without a group, or a name in `query_groups` alone.
        ValueError: a column of another length.
    """
    columns = dict(by) if isinstance(by, Mapping) else dict.fromkeys([by] if isinstance(by, str) else by)
    unknown = [name for name in query_groups if name not in columns]
    if unknown:
        raise KeyError(f"query_groups names {unknown[0]!r}, and by has only {list(columns)}; name the column in both")
    result = []
    for column, values in columns.items():
        of_train = column_of(train, column) if values is None else _listed(column, values, train)
        if column in query_groups:
            of_queries: NDArray[Any] | None = _listed(column, query_groups[column], queries)
        else:
            of_queries = _column_or_none(queries, column) if values is None else None
        result.append(_grouped(column, of_train, of_queries, len(queries)))
    return result


def _grouped(column: str, train: NDArray[Any], queries: NDArray[Any] | None, count: int) -> GroupColumn:
    values = np.concatenate([train.astype(object), [] if queries is None else queries.astype(object)])
    names: list[str] = []
    groups = np.full(len(train) + count, UNKNOWN, dtype=np.intp)
    for name, positions in values_of(values, cut_by=len(train)):
        groups[positions] = len(names)
        names.append(name)
    return GroupColumn(column, tuple(names), groups[: len(train)], groups[len(train) :])


def _listed(column: str, values: Any, examples: Examples) -> NDArray[Any]:
    """One group per example, (n,), of values in their order or of id → group."""
    if isinstance(values, Mapping):
        missing = [i for i in examples.ids.tolist() if i not in values]
        if missing:
            raise KeyError(f"expected a group of {column!r} for every id, got none for {missing[:3]}")
        values = [values[i] for i in examples.ids.tolist()]
    require_index_of_ids(column, values, examples.ids)
    array = np.asarray(values)
    if array.ndim != 1 or len(array) != len(examples):
        raise ValueError(f"expected one group of {column!r} per example ({len(examples)},), got shape {array.shape}")
    return array


def _column_or_none(queries: Examples, column: str) -> NDArray[Any] | None:
    try:
        return column_of(queries, column)
    except KeyError:
        return None

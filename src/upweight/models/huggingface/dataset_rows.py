"""Rows of tokenised inputs: as dicts, and their lengths and largest ids without reading them into lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.dataset_rows import is_dataset

READ_ROWS = 1000  # that are read at a time


def rows_of(x: Any) -> list[dict[str, Any]]:
    """The inputs of examples as dicts; plain sequences of token ids become `input_ids`."""
    if is_dataset(x):
        columns = x[:]
        return [{name: column[i] for name, column in columns.items()} for i in range(len(x))]
    return [dict(row) if isinstance(row, Mapping) else {"input_ids": _plain(row)} for row in x]


def column_names(x: Any) -> set[str]:
    """The names of the columns of inputs."""
    if is_dataset(x):
        return set(x[0]) if x.format["type"] == "custom" else set(x.column_names)
    return set(rows_of(x[:1])[0])


def lengths_and_largest(x: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(Tokens of every row, its largest token id), each (n,)."""
    if not is_dataset(x):
        rows = [np.asarray(row["input_ids"]).reshape(-1) for row in rows_of(x)]
        return np.array([len(row) for row in rows]), np.array([row.max(initial=-1) for row in rows])
    lengths, largest = [], []
    columns = x.select_columns("input_ids").with_format("arrow")
    for start in range(0, len(x), READ_ROWS):
        array = columns[start : start + READ_ROWS].column("input_ids").combine_chunks()
        array = array.chunk(0) if hasattr(array, "chunks") else array
        counts = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        values = np.append(array.flatten().to_numpy(zero_copy_only=False), -1)
        largest.append(np.where(counts > 0, np.maximum.reduceat(values, np.cumsum(counts) - counts), -1))
        lengths.append(counts)
    return np.concatenate(lengths), np.concatenate(largest)


def _plain(row: Any) -> Any:
    return row.tolist() if isinstance(row, np.ndarray) else list(row)

"""Rows of tokenised inputs: as dicts, and their lengths and largest ids without reading them into lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.dataset_rows import is_dataset

READ_ROWS = 1000  # rows read at a time


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


def sequences_of(tokens: Any) -> list[list[int]]:
    """The sequences of one row: one, or several if it has choices."""
    plain = _plain(tokens)
    if plain and not isinstance(plain[0], int):
        return [_plain(sequence) for sequence in plain]
    return [plain]


def lengths_and_largest(x: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(Tokens of the longest sequence of every row, its largest token id), each (n,)."""
    if not is_dataset(x) or _has_choices(x):
        rows = [sequences_of(row["input_ids"]) for row in rows_of(x)]
        lengths = [max(map(len, sequences)) for sequences in rows]
        return np.array(lengths), np.array([max(max(s, default=-1) for s in sequences) for sequences in rows])
    counted, largest = [], []
    columns = x.select_columns("input_ids").with_format("arrow")
    for start in range(0, len(x), READ_ROWS):
        array = columns[start : start + READ_ROWS].column("input_ids").combine_chunks()
        array = array.chunk(0) if hasattr(array, "chunks") else array
        counts = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        values = np.append(array.flatten().to_numpy(zero_copy_only=False), -1)
        largest.append(np.where(counts > 0, np.maximum.reduceat(values, np.cumsum(counts) - counts), -1))
        counted.append(counts)
    return np.concatenate(counted), np.concatenate(largest)


def _has_choices(x: Any) -> bool:
    first = x.with_format(None)[0]["input_ids"]
    return len(first) > 0 and isinstance(first[0], list)


def _plain(row: Any) -> Any:
    return row.tolist() if hasattr(row, "tolist") else list(row)

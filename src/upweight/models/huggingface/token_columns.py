"""Lengths and largest ids of tokenised rows, without reading them into lists."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.dataset_rows import is_dataset
from upweight.models.huggingface.collation import rows_of

ROWS = 1000  # that are read at a time


def lengths_and_largest(x: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(Tokens of every row, its largest token id), each (n,)."""
    if not is_dataset(x):
        rows = [np.asarray(row["input_ids"]).reshape(-1) for row in rows_of(x)]
        return np.array([len(row) for row in rows]), np.array([row.max(initial=-1) for row in rows])
    lengths, largest = [], []
    columns = x.select_columns("input_ids").with_format("arrow")
    for start in range(0, len(x), ROWS):
        array = columns[start : start + ROWS].column("input_ids").combine_chunks()
        array = array.chunk(0) if hasattr(array, "chunks") else array
        counts = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        tokens = array.flatten()
        while hasattr(tokens, "flatten") and hasattr(tokens, "value_lengths"):  # several sequences in a row
            counts = np.add.reduceat(tokens.value_lengths().to_numpy(), np.cumsum(counts) - counts)
            tokens = tokens.flatten()
        values = np.append(tokens.to_numpy(zero_copy_only=False), -1)
        starts = np.cumsum(counts) - counts
        largest.append(np.where(counts > 0, np.maximum.reduceat(values, starts), -1))
        lengths.append(counts)
    return np.concatenate(lengths), np.concatenate(largest)

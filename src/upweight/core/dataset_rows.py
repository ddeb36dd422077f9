"""Data sets of Hugging Face's `datasets` as inputs: rows read from Arrow when they are needed, and their contents.

They are recognised by their module, so that the library is not imported for them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGESTED_ROWS = 1000  # rows read at a time for a digest
READ_TWICE = 4  # rows that are read twice, of a data set with the user's own transform


def is_dataset(x: Any) -> bool:
    """Whether x is a map-style `datasets.Dataset`."""
    return _is_of_datasets(x) and hasattr(x, "num_rows") and not isinstance(x, Mapping)


def as_rows(x: Any) -> Any:
    """Inputs with one entry per example, made of a column of a data set: a list of texts, or an array of numbers.

    Everything else stays as it is.

    Raises:
        TypeError: a data set that is streamed, or several splits at once.
        ValueError: a data set whose transform is random.
    """
    if _is_of_datasets(x) and hasattr(x, "column_name") and hasattr(x, "source"):
        values = x[:]
        return values if not isinstance(values, list) or isinstance(values[0], str | list | dict) else np.array(values)
    if _is_of_datasets(x) and isinstance(x, Mapping):
        raise TypeError(f"expected one split of the data set, got all of {sorted(x)}; pass for example x['train']")
    if _is_of_datasets(x) and not hasattr(x, "num_rows") and hasattr(x, "features"):
        raise TypeError(
            f"expected a data set with positions, got {type(x).__name__}, which is streamed: an example of it cannot "
            "be named or read again; collect it with datasets.Dataset.from_list(list(stream.take(n)))"
        )
    if is_dataset(x):
        _require_same_when_read_twice(x)
    return x


def take_dataset_rows(x: Any, where: NDArray[np.intp]) -> Any:
    """The rows of a data set at these positions, as a data set; consecutive ones are a slice."""
    first = int(where[0])
    is_slice = bool((where == np.arange(first, first + len(where))).all()) and first >= 0
    return x.select(range(first, first + len(where)) if is_slice else where)


def join_datasets(first: Any, second: Any) -> Any:
    """The rows of two data sets below each other."""
    return sys.modules["datasets"].concatenate_datasets([first, second])


def column_values(values: Any) -> Any:
    """The values of a column of a data set at once; anything else unchanged."""
    return values[:] if _is_of_datasets(values) and hasattr(values, "column_name") else values


def version_of(x: Any) -> Any:
    """The identity of the rows of a data set, which cannot be changed in place. Anything else is returned."""
    return (x._fingerprint, x.format) if is_dataset(x) and hasattr(x, "_fingerprint") else x


def dataset_blocks(x: Any) -> Iterator[list[Any]]:
    """The contents of a data set, block by block of rows: its columns as Arrow holds them."""
    rows = x.with_format("arrow")
    for start in range(0, len(x), DIGESTED_ROWS):
        table = rows[start : start + DIGESTED_ROWS]
        yield [_arrow_parts(table.column(name)) for name in table.column_names]


def _arrow_parts(array: Any) -> tuple[Any, ...]:
    """The contents of an Arrow array, however it is divided into chunks."""
    if hasattr(array, "combine_chunks"):
        array = array.combine_chunks()
    if hasattr(array, "chunks"):
        array = array.chunk(0)
    if hasattr(array, "storage"):
        array = array.storage
    if hasattr(array, "dictionary_decode"):
        array = array.dictionary_decode()
    kind, missing = str(array.type), np.asarray(array.is_null()) if array.null_count else None
    if kind.startswith("struct"):
        return kind, missing, [_arrow_parts(field) for field in array.flatten()]
    if hasattr(array, "value_lengths"):
        lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        return kind, missing, lengths, _arrow_parts(array.flatten())
    return kind, missing, array.to_numpy(zero_copy_only=False)


def _is_of_datasets(x: Any) -> bool:
    return type(x).__module__.partition(".")[0] == "datasets"


def _require_same_when_read_twice(x: Any) -> None:
    if x.format["type"] != "custom":
        return
    for i in np.unique(np.linspace(0, len(x) - 1, READ_TWICE).astype(int)).tolist():
        first, second = x[i], x[i]
        if not all(_same(first[name], second[name]) for name in first):
            raise ValueError(
                f"row {i} differs when it is read twice: the transform of the data set augments or is random; switch "
                "it off (or fix its seed per row) before explaining"
            )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, str) or a is None:
        return bool(a == b)
    return np.array_equal(np.asarray(a), np.asarray(b))

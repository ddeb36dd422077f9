"""The kinds of input that a data set may have: arrays, sparse matrices, data frames, texts, map-style data sets.

They are recognised by their attributes, so that no library is imported for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.dataset_rows import is_dataset, join_datasets, take_dataset_rows

LABEL_COLUMNS = ("label", "labels", "label_ids", "target", "y")


def is_sparse(x: Any) -> bool:
    """Whether x is a scipy sparse matrix or array."""
    return hasattr(x, "tocsr") and hasattr(x, "nnz")


def columns_of(x: Any) -> list[str] | None:
    """Column names of a pandas or polars data frame; None for anything else."""
    if hasattr(x, "columns") and (hasattr(x, "iloc") or hasattr(x, "row")):
        return [str(name) for name in x.columns]
    return None


def as_array(x: Any) -> NDArray[Any]:
    """x as an array, data frames as scikit-learn takes them.

    Columns of nullable, Arrow-backed or mixed kinds become float64 with NaN where one is missing; if they are not all
    numbers, the array is one of objects.
    """
    array = np.asarray(x.to_numpy() if hasattr(x, "to_numpy") else x)
    if array.dtype != object:
        return array
    try:
        missing = {"na_value": np.nan} if hasattr(x, "iloc") else {}
        return np.asarray(x.to_numpy(dtype=np.float64, **missing) if missing else array.astype(np.float64))
    except (ValueError, TypeError):
        return array


def length_of(x: Any) -> int:
    """Number of examples in x. Raises TypeError if x cannot be indexed by position."""
    if isinstance(x, list | tuple) or is_dataset(x):
        return len(x)
    shape = getattr(x, "shape", None)
    if not shape:
        raise TypeError(
            "expected inputs with one entry per example (array, sparse matrix, data frame, list of texts), got "
            f"{type(x).__name__}; a data set that is read item by item goes through Examples.from_dataset"
        )
    return int(shape[0])


def take_rows(x: Any, where: NDArray[np.intp]) -> Any:
    """The rows of x at these positions, of the same kind as x."""
    if hasattr(x, "iloc"):
        return x.iloc[where]
    if is_dataset(x):
        return take_dataset_rows(x, where)
    if is_sparse(x):
        return x.tocsr()[where]
    if isinstance(x, list | tuple):
        return [x[i] for i in where]
    return x[where]


def join_rows(first: Any, second: Any) -> Any:
    """All rows of the first followed by those of the second, of the same kind as the first.

    Raises ValueError if they do not fit together.
    """
    try:
        if is_sparse(first):
            top, bottom = first.tocoo(), second.tocoo() if is_sparse(second) else type(first)(second).tocoo()
            if top.shape[1] != bottom.shape[1]:
                raise ValueError(f"{top.shape[1]} and {bottom.shape[1]} columns")
            rows = np.concatenate([top.row, bottom.row + top.shape[0]])
            columns, values = np.concatenate([top.col, bottom.col]), np.concatenate([top.data, bottom.data])
            return type(first)((values, (rows, columns)), shape=(top.shape[0] + bottom.shape[0], top.shape[1]))
        if columns_of(first) is not None:
            if columns_of(first) != columns_of(second):
                raise ValueError(f"columns {columns_of(first)} and {columns_of(second)}")
            if not hasattr(first, "iloc"):
                return first.vstack(second)  # polars
            import pandas as pd

            return pd.concat([first, second])
        if isinstance(first, list | tuple):
            return [*first, *second]
        if is_dataset(first):
            return join_datasets(first, second)
        return np.concatenate([first, second])
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"these inputs cannot be put below each other ({error}); pass both in one form") from error


def read_dataset(dataset: Any) -> tuple[Any, Any]:
    """Inputs and targets of a map-style data set. A few items are read twice, to detect augmentation.

    The rows of a `datasets.Dataset` stay where they are, without the column of labels.
    """
    dataset = _dataset_of(dataset)
    if is_dataset(dataset):
        return split_labels(dataset)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise TypeError(
            f"expected a data set with len() and [i], got {type(dataset).__name__}: without positions an example "
            "cannot be named; collect it into a list first"
        )
    n = len(dataset)
    if n == 0:
        raise ValueError("expected at least one example, got an empty data set")
    items = [_pair(dataset[i]) for i in range(n)]
    for i in np.unique(np.linspace(0, n - 1, 16).astype(int)).tolist():
        second_reading = _pair(dataset[i])
        if not all(_same(a, b) for a, b in zip(items[i], second_reading, strict=True)):
            raise ValueError(
                f"item {i} differs when it is read twice: the data set augments or is random; "
                "switch the augmentation off (or fix its seed per item) before explaining"
            )
    inputs, targets = [x for x, _ in items], [_plain(y) for _, y in items]
    return _stack(inputs), None if all(y is None for y in targets) else np.array(targets)


def split_labels(dataset: Any) -> tuple[Any, Any]:
    """(A `datasets.Dataset` without its column of labels, the labels); labels that are lists stay in the rows."""
    name = next((name for name in LABEL_COLUMNS if name in dataset.column_names), None)
    if name is None or len(dataset) == 0 or np.ndim(dataset.with_format(None)[0][name]) > 0:
        return dataset, None
    y = dataset.with_format(None)[name][:]
    return dataset if dataset.format["type"] == "custom" else dataset.remove_columns(name), y  # a transform may read it


def ids_of_subset(dataset: Any) -> list[int] | None:
    """The positions of a subset's items in the data set behind it (or behind several); None for another data set.

    None also if an item is in the subset twice, because it then has no id of its own, or if its items have names.
    """
    dataset = _dataset_of(dataset)
    if not is_subset(dataset):
        return None
    try:
        positions = [int(i) for i in dataset.indices]
        while is_subset(dataset.dataset):
            dataset = dataset.dataset
            positions = [int(dataset.indices[i]) for i in positions]
    except (TypeError, ValueError):
        return None
    return positions if len(set(positions)) == len(positions) else None


def is_subset(dataset: Any) -> bool:
    """Whether these are items at chosen `indices` of another `dataset`, as a torch `Subset`."""
    return hasattr(dataset, "indices") and hasattr(dataset, "dataset") and hasattr(dataset, "__getitem__")


def _dataset_of(loader: Any) -> Any:
    """The data set of a sequential data loader; anything else unchanged. Raises ValueError for a shuffling loader."""
    sampler = getattr(loader, "sampler", None)
    if sampler is None or not hasattr(loader, "dataset"):
        return loader
    if type(sampler).__name__ != "SequentialSampler":
        raise ValueError(
            f"the loader draws its examples by {type(sampler).__name__}, so positions say nothing about examples; "
            "pass loader.dataset, or a loader with shuffle=False"
        )
    return loader.dataset


def _pair(item: Any) -> tuple[Any, Any]:
    """(input, target) of one item; the target is None if the item has none."""
    if isinstance(item, dict):
        inputs = next((item[k] for k in ("x", "input", "image", "text", "features") if k in item), None)
        target = next((item[k] for k in ("y", "label", "labels", "target") if k in item), None)
        if inputs is None:
            raise ValueError(f"expected one of the keys x, input, image, text or features, got {sorted(item)}")
        return inputs, target
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    if isinstance(item, tuple):
        if len(item) != 1:
            raise ValueError(f"expected items of the form (input, target), got a tuple of {len(item)}; pick two")
        return item[0], None
    return item, None


def _plain(value: Any) -> Any:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _same(a: Any, b: Any) -> bool:
    if a is None or isinstance(a, str):
        return bool(a == b)
    a, b = np.asarray(_plain(a)), np.asarray(_plain(b))
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc" and b.dtype.kind in "fc")


def _stack(inputs: list[Any]) -> Any:
    if isinstance(inputs[0], str):
        return inputs
    arrays = [np.asarray(_plain(x)) for x in inputs]
    shapes = list(dict.fromkeys(a.shape for a in arrays))
    if len(shapes) > 1:
        raise ValueError(f"expected inputs of one shape, got {shapes[0]} and {shapes[1]}; resize or pad them first")
    return np.stack(arrays)

"""The columns of a wide table that a page shows: those that go most with the labels, strongest first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.input_kinds import columns_of, is_sparse, take_rows

Array = NDArray[np.float64]
COLUMNS_SHOWN = 24  # of one row
MAX_ROWS = 2_000  # of the training set and of the queries, from which columns are chosen
MAX_CLASSES = 50  # labels compared with the columns
MAX_CATEGORIES = 50  # values of one column compared with the labels


def deciding_columns(train: Examples, queries: Examples) -> list[int] | None:
    """Positions of the columns to show, strongest first; None for inputs whose previews show all that they need.

    A column counts by its correlation with a label, times its largest distance from the training mean among the
    queries, in standard deviations: the contribution that a model of this column alone would give to a prediction.
    Without labels, a column counts by that distance.
    """
    width = _width(train)
    if width <= COLUMNS_SHOWN or _width(queries) != width:
        return None
    rows = np.unique(np.linspace(0, len(train) - 1, MAX_ROWS).astype(int))
    asked = np.unique(np.linspace(0, len(queries) - 1, MAX_ROWS).astype(int))
    labels = None if train.y is None else _standardised(_label_columns(train.y[rows]))[0]
    known, new = take_rows(_shown(train), rows), take_rows(_shown(queries), asked)
    strength = np.zeros(width)
    columns, numbers = _numbers(known)
    if len(columns):
        z, mean, spread = _standardised(numbers)
        distance = np.abs(np.nan_to_num((_columns(new, columns) - mean) / spread)).max(axis=0)
        strength[columns] = distance * (1.0 if labels is None else _correlation(z, labels))
    if labels is not None:
        for column in np.setdiff1d(np.arange(width), columns).tolist():
            strength[column] = 2.0 * _of_categories(known, column, labels)
    strongest: list[int] = np.argsort(-strength, kind="stable")[:COLUMNS_SHOWN].tolist()
    return strongest


def _shown(examples: Examples) -> Any:
    return examples.x if examples.shown is None else examples.shown


def _width(examples: Examples) -> int:
    """Number of columns of a table of rows; 0 for sparse rows, pictures and texts."""
    x = _shown(examples)
    shape: tuple[int, ...] = getattr(x, "shape", ())
    return 0 if is_sparse(x) or len(shape) != 2 else int(shape[1])


def _numbers(x: Any) -> tuple[NDArray[np.intp], Array]:
    """(positions of the numeric columns, their values)."""
    if columns_of(x) is None:
        array = np.asarray(x)
        columns = np.arange(array.shape[1] if array.dtype.kind in "fiub" else 0)
    elif hasattr(x, "iloc"):
        columns = np.array([i for i, kind in enumerate(x.dtypes) if _is_number(kind)], dtype=np.intp)
    else:
        columns = np.array([i for i, kind in enumerate(x.dtypes) if kind.is_numeric()], dtype=np.intp)
    return columns, _columns(x, columns)


def _is_number(kind: Any) -> bool:
    return getattr(kind, "kind", "O") in "fiub"


def _columns(x: Any, columns: NDArray[np.intp]) -> Array:
    """These columns as floats; missing values and everything that is no number are NaN."""
    if columns_of(x) is None:
        return np.asarray(np.asarray(x)[:, columns], dtype=np.float64)
    if hasattr(x, "iloc"):
        return np.asarray(x.iloc[:, columns].to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(x[:, columns.tolist()].to_numpy(), dtype=np.float64)


def _standardised(values: Array) -> tuple[Array, Array, Array]:
    """(values with mean 0 and variance 1, means, standard deviations); constants and missing values become 0."""
    finite = np.where(np.isfinite(values), values, np.nan)
    counts = np.maximum(np.isfinite(values).sum(axis=0), 1)
    mean = np.nansum(finite, axis=0) / counts
    centred = np.nan_to_num(finite - mean)
    spread = np.sqrt((centred**2).sum(axis=0) / counts)
    spread = np.where(spread > 1e-12 * np.maximum(np.abs(mean), 1e-300), spread, np.inf)
    return centred / spread, mean, spread


def _correlation(z: Array, labels: Array) -> Array:
    """The largest absolute correlation of every column with a label."""
    return np.asarray(np.abs(z.T @ labels).max(axis=1) / len(z))


def _label_columns(y: NDArray[Any]) -> Array:
    """Regression targets as they are, classes as one column of zeros and ones each."""
    if y.ndim > 1 or y.dtype.kind == "f":
        return np.asarray(y, dtype=np.float64).reshape(len(y), -1)
    classes, counts = np.unique(y, return_counts=True)
    return np.asarray(y[:, None] == classes[np.argsort(-counts, kind="stable")[:MAX_CLASSES]], dtype=np.float64)


def _of_categories(x: Any, column: int, labels: Array) -> float:
    """The largest absolute correlation between a value of a column and a label."""
    values = np.asarray(x.iloc[:, column] if hasattr(x, "iloc") else x[:, column]).astype(str)
    names, counts = np.unique(values, return_counts=True)
    usual = names[np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]]
    return float(_correlation(_standardised((values[:, None] == usual).astype(np.float64))[0], labels).max())

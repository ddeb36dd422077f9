"""The columns of training rows and of one query, and new rows in the form in which the user has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.example_columns import is_missing
from upweight.core.examples import Examples
from upweight.core.input_kinds import columns_of, is_sparse, join_rows

Array = NDArray[np.float64]
PLAIN = (str, int, float)
CATEGORIES = ("category", "Categorical", "Enum")


class Columns:
    """Training rows and, as the last row, one query.

    Attributes:
        names: of the columns, (d,).
        is_number: which columns are numbers, (d,); the others are categories.
        codes: (n + 1, d): numbers as they are, categories as positions in `categories`.
        categories: of every column, in the order of their codes; empty for numbers.

    Raises:
        ValueError: inputs that are not a table, other columns than the training set, an infinite number, or a category
            of the query that a categorical column of the training set cannot hold.
        KeyError: a name in `categorical` that is not a column.
    """

    def __init__(self, train: Examples, query: Examples, categorical: Sequence[str | int] = ()) -> None:
        self.stack = _stacked(train, query)
        d = int(self.stack.shape[1])
        self.names = [f"x{j}" for j in range(d)] if train.names is None else list(train.names)
        named = {self._position(name) for name in categorical}
        self.is_number = np.ones(d, dtype=bool)
        self.codes = np.empty((int(self.stack.shape[0]), d))
        self.categories: list[list[Any]] = [[] for _ in range(d)]
        self._whole = np.zeros(d, dtype=bool)
        for j in range(d):
            self._encode(j, j in named)

    def __len__(self) -> int:
        return len(self.codes)

    def _position(self, name: str | int) -> int:
        if isinstance(name, str) and name in self.names:
            return self.names.index(name)
        if isinstance(name, int | np.integer) and 0 <= name < len(self.names):
            return int(name)
        raise KeyError(f"no column {name!r}; columns are {self.names[:8]}")

    def _encode(self, j: int, is_categorical: bool) -> None:
        column = self._column(j)
        numbers = None if is_categorical else _numbers(column)
        if numbers is not None and np.isinf(numbers).any():
            raise ValueError(f"expected finite numbers, got infinite ones in column {self.names[j]!r}")
        if numbers is not None and not _has_two_values(numbers):
            self.codes[:, j] = numbers
            present = numbers[~np.isnan(numbers)]
            self._whole[j] = np.asarray(column).dtype.kind in "iu" or bool(np.all(present == np.round(present)))
            return
        self.is_number[j] = False
        values = column.to_list() if hasattr(column, "to_list") else np.asarray(column).tolist()
        positions: dict[Any, int] = {}
        keys = [None if is_missing(value) else value for value in values]
        self.codes[:, j] = [positions.setdefault(key, len(positions)) for key in keys]
        self.categories[j] = list(positions)

    def _column(self, j: int) -> Any:
        if columns_of(self.stack) is None:
            return self.stack[:, j]
        return self.stack.iloc[:, j] if hasattr(self.stack, "iloc") else self.stack.to_series(j)

    def rows(self, sources: NDArray[np.intp], numbers: Mapping[int, Array] | None = None) -> Any:
        """New rows whose column j is that of row sources[:, j]; the query is the last row.

        `numbers` are columns of other numbers, by position.
        """
        replaced = numbers or {}
        if columns_of(self.stack) is None:
            rows = np.take_along_axis(self.stack, sources, axis=0)
            if rows.dtype.kind in "iu" and not all(map(_are_whole, replaced.values())):
                rows = rows.astype(np.float64)
            for j, values in replaced.items():
                rows[:, j] = values
            return rows
        if not hasattr(self.stack, "iloc"):  # polars
            parts = [self._column(j).gather(sources[:, j]) for j in range(sources.shape[1])]
            for j, values in replaced.items():
                column = type(parts[j])(self.names[j], [None if np.isnan(value) else value for value in values])
                parts[j] = column.cast(parts[j].dtype) if _are_whole(values) else column
            return type(self.stack)(parts)
        rows = self.stack.iloc[sources[:, 0]].reset_index(drop=True)
        for j in range(sources.shape[1]):
            column = self.stack.iloc[:, j].take(sources[:, j]).reset_index(drop=True)
            if j in replaced:
                kind, column = column.dtype, type(column)(replaced[j], name=column.name)
                column = column.astype(kind) if _are_whole(replaced[j]) else column
            rows.isetitem(j, column)
        return rows

    def first_with(self, j: int) -> NDArray[np.intp]:
        """For every category of column j, the first row that has it."""
        return np.asarray(np.unique(self.codes[:, j], return_index=True)[1])

    def rounded(self, j: int, values: Array) -> Array:
        """Numbers as this column has them: whole ones if all of its own are whole."""
        return np.round(values) if self._whole[j] else values

    def text(self, j: int, code: float) -> str:
        """A value of this column in words."""
        if not self.is_number[j]:
            value = self.categories[j][int(code)]
            return "missing" if value is None else str(value)
        return "missing" if np.isnan(code) else number_text(code)

    def value(self, j: int, code: float) -> Any:
        """A value of this column as a plain value: None for a missing one, whole numbers as int."""
        if not self.is_number[j]:
            category = self.categories[j][int(code)]
            return category if isinstance(category, PLAIN) or category is None else str(category)
        if np.isnan(code):
            return None
        return int(code) if self._whole[j] and float(code).is_integer() else float(code)


def number_text(value: float) -> str:
    """A number with four significant digits, its whole part in full."""
    return f"{value:.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.4g}"


def _stacked(train: Examples, query: Examples) -> Any:
    for examples in (train, query):
        if is_sparse(examples.x):
            raise ValueError("expected a dense table, got a sparse matrix; pass x.toarray()")
        if isinstance(examples.x, list | tuple) and isinstance(examples.x[0], str):
            raise ValueError("expected numbers or columns, got texts; pass a table, or the features made of the texts")
    if columns_of(train.x) is not None or columns_of(query.x) is not None:
        return _stacked_frames(train.x, query.x)
    parts = [np.asarray(examples.x) for examples in (train, query)]
    if parts[0].ndim != 2 or parts[0].shape[1:] != parts[1].shape[1:]:
        raise ValueError(
            f"expected inputs with the columns of the training set, got shapes {parts[0].shape} and {parts[1].shape}"
        )
    return np.concatenate(parts)


def _stacked_frames(train: Any, query: Any) -> Any:
    if columns_of(train) != columns_of(query):
        raise ValueError(
            f"expected a query with the columns of the training set, {columns_of(train) or 'an array'}, in this order, "
            f"got {columns_of(query) or 'an array'}"
        )
    if not hasattr(train, "iloc"):
        return join_rows(train, query)
    for j, kind in enumerate(train.dtypes):
        value = query.iloc[0, j]
        if str(kind) == "category" and not is_missing(value) and value not in kind.categories:
            raise ValueError(
                f"expected a category of column {train.columns[j]!r}, got {value!r}, which the training set lacks"
            )
    try:
        return join_rows(train.reset_index(drop=True), query.astype(dict(train.dtypes)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"expected a query with the types of the training set's columns ({error})") from error


def _numbers(column: Any) -> Array | None:
    """The column as floats with NaN for missing values; None if it is not a column of numbers."""
    if str(column.dtype).split("(")[0] in CATEGORIES:
        return None
    array = np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)
    if array.dtype.kind in "iuf":
        return array.astype(np.float64)
    if array.dtype != object:
        return None
    values = [None if is_missing(value) else value for value in array.tolist()]
    if not all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return None
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _are_whole(numbers: Array) -> bool:
    return bool(np.all(np.isnan(numbers) | (numbers == np.round(numbers))))


def _has_two_values(numbers: Array) -> bool:
    """Whether it has at most two values, so that between them lies nothing."""
    low, high = np.nanmin(numbers, initial=np.inf), np.nanmax(numbers, initial=-np.inf)
    return bool(np.all((numbers == low) | (numbers == high) | np.isnan(numbers)))

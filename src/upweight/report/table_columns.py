"""Tables of any kind (arrays, pandas, polars), read column by column."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.example_columns import is_missing
from upweight.core.examples import Examples
from upweight.core.input_kinds import columns_of, is_sparse, take_rows

NUMBERS = "fiu"  # kinds of numpy


@dataclass(frozen=True)
class Table:
    """Rows of an array (n, columns) or of a data frame."""

    x: Any
    names: list[str]

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.x.shape[1])

    @cached_property
    def numeric(self) -> NDArray[np.bool_]:
        """Whether each column holds numbers, shape (columns,). Truth values are not numbers here."""
        if isinstance(self.x, np.ndarray):
            kinds = [self.x.dtype.kind] * self.width
        elif self._is_pandas:
            kinds = [getattr(kind, "kind", "O") for kind in self.x.dtypes]
        else:
            kinds = ["f" if kind.is_numeric() else "U" for kind in self.x.dtypes]
        numeric = (kind in NUMBERS or (kind == "O" and self._holds_numbers(i)) for i, kind in enumerate(kinds))
        return np.fromiter(numeric, dtype=bool, count=self.width)

    def take(self, rows: NDArray[np.intp]) -> Table:
        """The rows at these positions."""
        return Table(take_rows(self.x, rows), self.names)

    def select(self, names: list[str]) -> Table:
        """The columns of a frame in this order."""
        positions = [self.names.index(name) for name in names]
        return Table(self.x.iloc[:, positions] if self._is_pandas else self.x[:, positions], names)

    def numbers(self, positions: NDArray[np.intp]) -> NDArray[np.float64]:
        """These columns as floats, shape (rows, columns); missing values are NaN."""
        if isinstance(self.x, np.ndarray):
            return np.asarray(self.x[:, positions], dtype=np.float64)
        if self._is_pandas:
            return np.asarray(self.x.iloc[:, positions].to_numpy(dtype=np.float64, na_value=np.nan))
        return np.asarray(self.x[:, positions.tolist()].to_numpy(), dtype=np.float64)

    def values(self, position: int) -> list[Any]:
        """One column as Python values, in full: a whole number stays one."""
        if isinstance(self.x, np.ndarray):
            return list(self.x[:, position].tolist())
        return list((self.x.iloc[:, position] if self._is_pandas else self.x[:, position]).to_list())

    @property
    def _is_pandas(self) -> bool:
        return hasattr(self.x, "iloc")

    def _holds_numbers(self, position: int) -> bool:
        """Whether a column of objects has a number, and nothing but numbers and missing values."""
        any_number = False
        for value in self.values(position):
            if isinstance(value, int | float) and not isinstance(value, bool):
                any_number |= not is_missing(value)
            elif not is_missing(value):
                return False
        return any_number


def shown_of(examples: Examples) -> Any:
    """What reports show of these examples: `shown`, or the inputs."""
    return examples.x if examples.shown is None else examples.shown


def table_of(examples: Examples) -> Table | None:
    """What is shown of these examples as a table; None for sparse rows, pictures, texts and lists."""
    x = shown_of(examples)
    shape: tuple[int, ...] = getattr(x, "shape", ())
    if is_sparse(x) or len(shape) != 2:
        return None
    columns = columns_of(x)
    if columns is None and not isinstance(x, np.ndarray):
        return None
    names = examples.names if examples.shown is None else columns
    return Table(x, names or [f"x{i}" for i in range(shape[1])])


def tables_of(train: Examples, queries: Examples) -> tuple[Table, Table] | None:
    """Both sides with the same columns in the order of the training set; None if they are not tables of that kind."""
    known, new = table_of(train), table_of(queries)
    if known is None or new is None or known.width != new.width:
        return None
    if isinstance(known.x, np.ndarray) or isinstance(new.x, np.ndarray) or known.names == new.names:
        return known, new
    if set(known.names) != set(new.names):
        return None
    return known, new.select(known.names)

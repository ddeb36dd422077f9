"""Results as tables in long form: for pandas, polars, Arrow, and notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow


class Tabular:
    """A result that is a table of one row per finding.

    Attributes:
        _table: the key of `as_dict()` that holds the rows; a result whose rows are elsewhere has its own `_rows`.
        _examples: column of ids → the attribute with their `Examples`, so that notebooks show labels and contents.
    """

    _table: ClassVar[str] = ""
    _examples: ClassVar[Mapping[str, str]] = {}

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        rows: Iterable[Mapping[str, Any]] = self.as_dict()[self._table]  # type: ignore[attr-defined]
        return rows

    def to_columns(self) -> dict[str, Any]:
        """The table in long form: name → the values of a column, a list or an array, all of one length.

        Nested values have names like `certificate.share`; lists of rows inside of a row are left out. A column of
        different kinds of values has texts.
        """
        rows = [_flat(row) for row in self._rows()]
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: _of_one_kind([row.get(name) for row in rows]) for name in names}

    def to_pandas(self) -> pandas.DataFrame:
        """The table in long form as a data frame of pandas."""
        import pandas as pd

        return pd.DataFrame(self.to_columns())

    def to_polars(self) -> polars.DataFrame:
        """The table in long form as a data frame of polars."""
        import polars as pl

        return pl.DataFrame(self.to_columns())

    def to_arrow(self) -> pyarrow.Table:
        """The table in long form as a table of Arrow."""
        import pyarrow as pa

        return pa.table(self.to_columns())

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The table for everything that reads Arrow: `polars.DataFrame(result)`, `pyarrow.table(result)`, DuckDB."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def _repr_html_(self) -> str:
        html: str = import_module("upweight.report.notebook_html").notebook_html(self)
        return html


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple) and any(isinstance(part, Mapping | list | tuple) for part in value):
            continue
        else:
            flat[f"{prefix}{name}"] = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return flat


def _of_one_kind(values: Sequence[Any]) -> Sequence[Any]:
    """The values, as floats if they are numbers of different types, and as texts if they are of different kinds."""
    if any(isinstance(value, list | tuple) for value in values):
        lists = [None if value is None else np.ravel(value).tolist() for value in values]
        numeric = all(_is_number(part) for parts in lists for part in parts or ())
        return [None if parts is None else [float(p) if numeric else _text(p) for p in parts] for parts in lists]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) <= 1 and kinds <= {int, float, bool}:
        return values
    return [None if value is None else _text(value) for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _text(value: Any) -> str:
    """The value as a text that has a form in UTF-8, which half a surrogate pair lacks."""
    return str(value).encode("utf-8", errors="replace").decode()

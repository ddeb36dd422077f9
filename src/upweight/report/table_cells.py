"""The rows of a table on a page, column by column: columns that matter first, as many as fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from upweight.core.example_columns import is_missing
from upweight.core.examples import Examples, Id
from upweight.report.deciding_columns import Column, deciding_columns
from upweight.report.table_columns import tables_of
from upweight.report.wording import MAX_EXACT_INTEGER, cell_text, rounded

COLUMNS_ALWAYS = 24  # on the page however long their values are
MAX_TEXT = 20_000  # characters of one value
SHORT_TEXT = 200  # characters of a value in a column for which there is no room left
MAX_EXCERPT_COLUMNS = 4


class Cells:
    """The table behind one page. It is empty if the examples are not tables of one width.

    Args:
        train, queries: the examples of the two sides.
        max_bytes: of the cells on the page; the strongest columns that fit are there.
    """

    def __init__(self, train: Examples, queries: Examples, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        tables = tables_of(train, queries) or (None, None)
        self._sides = {"train": (train, tables[0]), "query": (queries, tables[1])}
        self._columns = deciding_columns(train, queries)
        self._rows: list[tuple[str, Id]] = []

    def __bool__(self) -> bool:
        return bool(self._columns)

    def without_entries(self, max_bytes: int | None = None) -> Cells:
        """The same table without rows on the page, and with another limit if there is one."""
        cells = copy(self)
        cells.max_bytes = cells.max_bytes if max_bytes is None else max_bytes
        cells._rows = []
        return cells

    def add(self, side: str, identifier: Id) -> int:
        """Put a row on the page; returns its number there."""
        self._rows.append((side, identifier))
        return len(self._rows) - 1

    def excerpts(self, ids: Sequence[Id]) -> list[str]:
        """The strongest columns of these training examples as one line each."""
        train, table = self._sides["train"]
        assert table is not None
        part, parts = table.take(train.positions(ids)), []
        for column in self._columns[:MAX_EXCERPT_COLUMNS]:
            name = table.names[column.position]
            parts.append([f"{name} {cell_text(value)}" for value in part.values(column.position)])
        return [", ".join(texts) for texts in zip(*parts, strict=True)]

    def data(self) -> dict[str, Any]:
        """Values for the script of the page: `columns`, strongest first, with the values of all rows, and `total`.

        A column of numbers has `values` (null if missing), `slope` and `mean`. Any other column has `levels` (distinct
        texts), `codes` (one per row) and `shifts` (one per level).
        """
        if not self._rows:
            return {"columns": [], "total": len(self._columns)}
        parts = []
        for side in ("train", "query"):
            (examples, table), ids = self._sides[side], [i for s, i in self._rows if s == side]
            if ids and table is not None:
                parts.append((table, table.take(examples.positions(ids))))
        order = np.argsort([side != "train" for side, _ in self._rows], kind="stable")
        places = np.argsort(order, kind="stable").tolist()  # of every row in the values of both sides
        columns: list[dict[str, Any]] = []
        size = 0
        for column in self._columns:
            values = [value for _, part in parts for value in part.values(column.position)]
            longest = max(SHORT_TEXT, (self.max_bytes - size) // len(self._rows))
            entry = _column(column, [values[place] for place in places], min(longest, MAX_TEXT))
            size += len(json.dumps(entry, ensure_ascii=False, separators=(",", ":")))
            if size > self.max_bytes and len(columns) >= COLUMNS_ALWAYS:
                break
            columns.append({"name": parts[0][0].names[column.position], **entry})
        return {"columns": columns, "total": len(self._columns)}


def _column(column: Column, values: list[Any], longest: int) -> dict[str, Any]:
    numbers = None if column.shifts else _numbers(values)
    if numbers is not None:
        return {"values": numbers, "slope": _short(column.slope), "mean": _short(column.mean)}
    code_of: dict[str, int] = {}
    codes = [code_of.setdefault(cell_text(value), len(code_of)) for value in values]
    return {
        "levels": [text if len(text) <= longest else text[: longest - 1] + "…" for text in code_of],
        "codes": codes,
        "shifts": [_short(column.shifts.get(text, 0.0)) for text in code_of],
    }


def _numbers(values: list[Any]) -> list[float | None] | None:
    """The values as numbers of JSON that are shown as they are; None if one of them cannot be such a number."""
    if set(map(type, values)) == {float} and np.isfinite(values).all() and np.abs(values).max() <= MAX_EXACT_INTEGER:
        return [rounded(value) for value in values]
    numbers: list[float | None] = []
    for value in values:
        if is_missing(value):
            numbers.append(None)
        elif isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_EXACT_INTEGER:
            return None
        else:
            numbers.append(value if isinstance(value, int) else rounded(value))
    return numbers


def _short(value: float) -> float:
    return float(f"{value:.4g}") if np.isfinite(value) else 0.0

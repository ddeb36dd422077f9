"""The columns of a table: which of them a default model reads, as what, and why the others are left out."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from upweight.cli.column_notes import ColumnNote, sentences
from upweight.cli.dates import are_dates
from upweight.cli.number_ids import IdKind, id_kind

if TYPE_CHECKING:
    import pandas

MAX_CATEGORY_SHARE = 0.5  # of distinct values; a column with more is not a category
MIN_TEXT_LENGTH = 20  # mean number of characters of free text
FEWEST_OF_TWO = 0.01  # of the rows; a text and empty cells that are both as frequent are two categories


@dataclass(frozen=True)
class TableColumns:
    """The columns that a default model reads, by what they are, and notes about the others."""

    numbers: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    notes: list[ColumnNote] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """All columns that are read."""
        return [*self.numbers, *self.categories, *self.texts]


def read_columns(frame: pandas.DataFrame, use: Collection[str] = (), leave_out: Collection[str] = ()) -> TableColumns:
    """The columns of a frame without its target.

    Constant, empty and duplicate columns, dates, numbers that look like ids and short texts that hardly repeat are left
    out, each with a note. Columns in `use` are read whatever they look like; those in `leave_out` are not.

    Raises:
        ValueError: no column is left.
    """
    columns = _sorted_columns(frame, use, leave_out)
    ids = [note.name for note in columns.notes if note.reason == "ids"]
    if not columns.names and ids:
        columns = _sorted_columns(frame, {*use, *ids}, leave_out)
        names = ", ".join(ids)
        sentence = f"No column is left to predict from but what looks like ids, so that {names} is used."
        columns.notes.append(ColumnNote(names, "ids", sentence))
    if not columns.names:
        raise ValueError(" ".join(["no column is left to predict from.", *sentences(columns.notes)]))
    return columns


def _sorted_columns(frame: pandas.DataFrame, use: Collection[str], leave_out: Collection[str]) -> TableColumns:
    columns = TableColumns()
    seen: dict[bytes, str] = {}
    for name in frame.columns:
        if name in leave_out:
            continue
        values = frame[name].dropna()
        note = _uninformative(values, frame[name], seen)
        if note is None or (name in use and len(values)):
            note = _place(name, values, len(frame), columns, forced=name in use)
        if note is not None:
            columns.notes.append(note)
    return columns


def _uninformative(values: pandas.Series, column: pandas.Series, seen: dict[bytes, str]) -> ColumnNote | None:
    """A note if a column has no information of its own: it is empty, constant, or equal to an earlier column.

    `values` are those of the column that are not missing.
    """
    name = str(column.name)
    if not len(values):
        return ColumnNote(name, "empty", f"Column {name} was left out: it is empty.")
    if values.astype(str).nunique() == 1 and not _may_be_empty(values, len(column)):
        value = plain_text(values.iloc[0])
        rows = "every row" if len(values) == len(column) else "every row in which it is not missing"
        return ColumnNote(name, "constant", f"Column {name} was left out: it is constant, {value} in {rows}.", value)
    contents = _digest(column)
    if contents in seen:
        original = seen[contents]
        return ColumnNote(name, "duplicate", f"Column {name} was left out: it is a duplicate of {original}.", original)
    seen[contents] = name
    return None


def _may_be_empty(values: pandas.Series, rows: int) -> bool:
    """Whether a text stands in some rows alone, as an x in a box does; empty cells are then a category of their own."""
    from pandas.api import types

    is_text = not types.is_numeric_dtype(values) and not are_dates(values)
    return is_text and FEWEST_OF_TWO <= len(values) / rows <= 1 - FEWEST_OF_TWO


def _place(name: str, values: pandas.Series, rows: int, columns: TableColumns, forced: bool) -> ColumnNote | None:
    """Read a column as numbers, categories or texts, with a note if that is not how it is written; or leave it out."""
    from pandas.api import types

    if are_dates(values):
        return ColumnNote(
            name,
            "dates",
            f"Column {name} was left out: it has dates, which a default model does not read. Make numbers of them, "
            "such as year and month.",
        )
    if types.is_numeric_dtype(values) and not types.is_bool_dtype(values):
        kind = None if forced else id_kind(name, values, rows)
        return _place_numbers(name, values, columns, kind)
    words = values.astype(str)
    distinct = words.nunique()
    if distinct <= max(2, MAX_CATEGORY_SHARE * len(values)):
        columns.categories.append(name)
    elif words.str.len().mean() >= MIN_TEXT_LENGTH:
        columns.texts.append(name)
    elif forced:
        columns.categories.append(name)
    else:
        sentence = f"Column {name} was left out: {distinct:,} short values, most of them unique; categories repeat."
        return ColumnNote(name, "unique texts", sentence + _as_ids(name, distinct, rows))
    return None


def _place_numbers(name: str, values: pandas.Series, columns: TableColumns, kind: IdKind | None) -> ColumnNote | None:
    if kind is None:
        columns.numbers.append(name)
        return None
    distinct = values.nunique()
    if kind == "codes":
        columns.categories.append(name)
        sentence = f"Column {name} is read as {distinct:,} categories: its whole numbers look like ids."
        return ColumnNote(name, "codes", sentence, f"{distinct:,}")
    detail = f"{distinct:,} different ones in {len(values):,} rows"
    advice = f"{_as_ids(name, distinct, len(values))} --use {quote(name)} makes it a feature."
    sentence = f"Column {name} was left out: its whole numbers look like ids, {detail}.{advice}"
    return ColumnNote(name, "ids", sentence, detail)


def _as_ids(name: str, distinct: int, rows: int) -> str:
    return f" --id {quote(name)} names the rows by it." if distinct == rows else ""


def plain_text(value: Any) -> str:
    """A value of a table as a user writes it: a whole number without .0, a date without midnight, no library's repr."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return str(value.date())
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _digest(column: pandas.Series) -> bytes:
    """Equal for columns of equal values, whether whole numbers are held as integers or as floats."""
    from pandas.api import types

    digest = hashlib.blake2b(digest_size=16)
    if types.is_integer_dtype(column) and not column.hasnans:
        digest.update(column.to_numpy().astype(np.int64).tobytes())
    elif types.is_numeric_dtype(column) and not types.is_bool_dtype(column):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        is_whole = bool((np.abs(numbers) < 2**53).all()) and bool((numbers == np.rint(numbers)).all())
        digest.update((numbers.astype(np.int64) if is_whole else numbers + 0.0).tobytes())
    else:
        digest.update("\x1f".join(map(str, column.tolist())).encode("utf-8", "surrogatepass"))
    return digest.digest()

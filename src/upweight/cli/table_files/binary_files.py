"""Parquet and Feather files → data frames with types and index of their own; the cells of an Excel sheet → texts."""

from __future__ import annotations

import importlib
import io
from collections.abc import Collection, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from upweight.cli.table_files.header import unique_names
from upweight.cli.table_files.records import Records
from upweight.cli.table_files.table_format import Kind

if TYPE_CHECKING:
    import pandas

LIBRARIES = {"excel": ("openpyxl", "excel"), "parquet": ("pyarrow", "tables"), "feather": ("pyarrow", "tables")}
SEARCHED_ROWS = 20  # of a sheet, for the names of columns
NESTED = (list, tuple, dict, set, bytes)


class Sheet(NamedTuple):
    """The cells of an Excel sheet as texts, with their row numbers from 1."""

    title: str
    records: Records
    notes: list[str]


def require_library(kind: Kind, name: str) -> None:
    """Raise ModuleNotFoundError if the library that reads this kind is not installed; the message names the extra."""
    module, extra = LIBRARIES.get(kind, ("pandas", "tables"))
    for each in ("pandas", module):
        try:
            importlib.import_module(each)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"reading {name} needs {error.name}; install it with: pip install 'upweight[{extra}]'"
            ) from error


def read_frame(data: bytes, kind: Kind, mentioned: Collection[str], name: str) -> tuple[pandas.DataFrame, list[str]]:
    """(the frame of a Parquet or Feather file, notes). Its index has ids, or 0 … n−1.

    Levels of the index become columns if the user mentions one of them.

    Raises:
        ValueError: the file is damaged.
    """
    import pandas as pd

    read: Any = pd.read_parquet if kind == "parquet" else pd.read_feather
    try:
        frame = read(io.BytesIO(data))
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ValueError(f"expected {name} to be a whole {kind} file, got: {error}") from error
    notes: list[str] = []
    if any(level in mentioned for level in frame.index.names):
        frame = frame.reset_index()
    else:
        frame, notes = _with_ids_as_index(frame, name)
    frame.columns, name_notes = unique_names([str(column) for column in frame.columns], frame.shape[1])
    frame, value_notes = _with_plain_values(frame)
    return frame, [*notes, *name_notes, *value_notes]


def _with_ids_as_index(frame: pandas.DataFrame, name: str) -> tuple[pandas.DataFrame, list[str]]:
    """The frame with its own index as ids, if every row has one of its own; else with the index as columns."""
    from upweight.core.row_index import labels_as_ids

    index = frame.index
    if index.equals(frame.reset_index(drop=True).index):
        return frame.reset_index(drop=True), []
    if index.has_duplicates or index.to_frame().isna().any(axis=None):
        note = f"The index of {name} has repeated or missing labels; it was read as a column, and rows count from 0."
        return frame.reset_index(), [note]
    title = ", ".join(str(level) for level in index.names if level is not None)
    return frame.set_axis(labels_as_ids(index)[0], axis=0), [f"The ids of the rows are the index {title} of {name}."]


def _with_plain_values(frame: pandas.DataFrame) -> tuple[pandas.DataFrame, list[str]]:
    """The frame with decimals as floats, and without columns of lists and the like, each of which has a note."""
    notes = []
    for column in list(frame.columns):
        values = frame[column].dropna() if frame[column].dtype == object else ()
        kinds = {type(value) for value in values}
        if kinds == {Decimal}:
            frame[column] = frame[column].astype("float64")
        elif any(issubclass(kind, NESTED) or kind.__module__ == "numpy" for kind in kinds):
            named = ", ".join(sorted(kind.__name__ for kind in kinds))
            notes.append(f"Column {column} was left out: its values are of the type {named}.")
            frame = frame.drop(columns=column)
    return frame, notes


def read_sheet(data: bytes, mentioned: Collection[str], name: str) -> Sheet:
    """Read the sheet of an Excel workbook that has the mentioned columns, or else the first one that has cells.

    Rows and columns without a value are left out.

    Raises:
        ValueError: the file is damaged, or has no values.
    """
    from openpyxl import load_workbook

    try:
        workbook: Any = load_workbook(io.BytesIO(data), data_only=True)
        filled = [sheet for sheet in workbook.worksheets if any(map(any, _cells(sheet)))]
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ValueError(f"expected {name} to be a whole Excel file, got: {error}") from error
    if not filled:
        raise ValueError(f"expected {name} to have a table, got sheets without values")
    sheet = chosen_sheet(filled, mentioned)
    cells = _cells(sheet)
    columns = [place for place, column in enumerate(zip(*cells, strict=True)) if any(column)]
    rows = {number: [row[place] for place in columns] for number, row in enumerate(cells, 1) if any(row)}
    which = "the first of" if sheet is filled[0] else "one of the"
    notes = [f"Only {which} {len(filled)} sheets of {name} was read: {sheet.title}."] if len(filled) > 1 else []
    return Sheet(sheet.title, Records(list(rows.values()), list(rows)), notes)


def chosen_sheet(sheets: Sequence[Any], mentioned: Collection[str]) -> Any:
    """Choose the first sheet that has all these texts in one of its first rows; without one, the first sheet."""
    for sheet in sheets if mentioned else ():
        rows = sheet.iter_rows(max_row=SEARCHED_ROWS, values_only=True)
        if any({_text(value).strip() for value in row}.issuperset(mentioned) for row in rows):
            return sheet
    return sheets[0]


def _cells(sheet: Any) -> list[list[str]]:
    return [[_text(value) for value in row] for row in sheet.iter_rows(values_only=True)]


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date):
        return value.isoformat()
    return "" if value is None else str(value)

"""`read_table`: a file → a data frame, its format, and notes on how it was read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upweight.cli.table_files.binary_files import read_frame, read_sheet, require_library
from upweight.cli.table_files.column_types import column_of, column_without
from upweight.cli.table_files.compression import contents_of
from upweight.cli.table_files.encodings import decode
from upweight.cli.table_files.layout import DIRECTIVE, lay_out
from upweight.cli.table_files.numbers import find_decimal
from upweight.cli.table_files.records import Records, read_records
from upweight.cli.table_files.rows import Rows, from_line, named_rows, read_rows
from upweight.cli.table_files.table_format import Kind, ReadingOptions, TableFormat
from upweight.cli.table_files.units_line import without_units

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from numpy.typing import NDArray

SUFFIXES = (".csv", ".tsv", ".tab", ".psv", ".txt", ".data", ".dat", ".xlsx", ".parquet", ".pq", ".feather", ".arrow")
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zip")


@dataclass(frozen=True, eq=False)
class Table:
    """A table that was read from a file.

    Attributes:
        frame: one row per row of the file, in its order; its index is 0 … n−1, or that of a Parquet or Feather file.
        form: how the file is written.
        last_lines: the line of a text file in which each row ends, or its row in an Excel sheet, from 1; else None.
        notes: sentences on what was found out or decided when the file was read.
    """

    frame: pandas.DataFrame
    form: TableFormat
    last_lines: list[int] | None
    notes: tuple[str, ...]


def is_table(path: Path) -> bool:
    """Whether the name of the file is one of a table, such as data.csv or data.tsv.gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED_SUFFIXES:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in SUFFIXES


def read_table(path: Path, options: ReadingOptions | None = None, targets: Collection[str] = ()) -> Table:
    """Read a text, Excel, Parquet or Feather file, which may be compressed. The kind is found out from its contents.

    Args:
        path: the file.
        options: what the user says about it; everything else is found out.
        targets: columns in which only empty cells are missing, however few of the others are not numbers.

    Raises:
        ModuleNotFoundError: pandas or the library for the kind of file is not installed; the message names the extra.
        ValueError: the file is not a table, or can be read in several ways; the message names the option that decides.
    """
    options = options or ReadingOptions()
    data, kind, compression = contents_of(path.read_bytes(), path.name)
    require_library(kind, path.name)
    form = TableFormat(kind, compression)
    if kind != "text":
        _require_no_options(options, kind, path.name)
    if kind == "excel":
        sheet = read_sheet(data, options.columns, path.name)
        records = from_line(options.header or 0, sheet.records, path.name)
        form = replace(form, sheet=sheet.title)
        rows = named_rows(records, len(records.fields[0]), form, options, path.name, sheet.notes)
        return _typed(rows, options, targets, path.name, [])
    if kind != "text":
        frame, notes = read_frame(data, kind, options.columns, path.name)
        return Table(frame, form, None, tuple(notes))
    text, encoding, notes = decode(data, options.encoding, path.name)
    rows = _rows(text, replace(form, encoding=encoding), options, path.name)
    return _typed(rows, options, targets, path.name, notes)


def _require_no_options(options: ReadingOptions, kind: Kind, name: str) -> None:
    """Raise ValueError for an option that this kind of file has no use for."""
    passed: dict[str, Any] = {"--sep": options.separator, "--encoding": options.encoding, "--decimal": options.decimal}
    if kind != "excel":
        passed["--header"] = options.header
    names = " and ".join(option for option, value in passed.items() if value is not None)
    if names:
        raise ValueError(f"{names} is for text files, and {name} is {kind}, which says itself how it is to be read")


def read_all_records(path: Path, form: TableFormat) -> Records:
    """All records of a text file of this format, with header, comments and blank lines."""
    text, _, _ = decode(contents_of(path.read_bytes(), path.name).data, form.encoding, path.name)
    return read_records(text, form)


def _rows(text: str, form: TableFormat, options: ReadingOptions, name: str) -> Rows:
    """The rows of a text whose layout is found out."""
    directive = DIRECTIVE.match(text)
    separator = options.separator or (directive[1] if directive else None)
    if directive:
        text = "#\n" + text[directive.end() :]
    line_end = "\r\n" if "\r\n" in text else "\n" if "\n" in text or "\r" not in text else "\r"
    return read_rows(text, lay_out(text, replace(form, line_end=line_end), separator, name), options, name)


def _typed(rows: Rows, options: ReadingOptions, targets: Collection[str], name: str, notes: list[str]) -> Table:
    """The rows as columns of numbers, dates and texts."""
    import pandas as pd

    decimal, thousands = options.decimal or ".", options.thousands
    if rows.form.kind == "text" and options.decimal is None:
        decimal = find_decimal([column.texts for column in rows.columns], rows.form.separator, name, thousands)
    form = replace(rows.form, decimal=decimal)
    if str(form):
        notes.append(f"How {name} was read: {form}.")
    rows = without_units(rows, name)
    notes += rows.notes
    typed, marks, blank = {}, (decimal, thousands), _without_target(rows, targets)
    for column_name, cells in zip(rows.names, rows.columns, strict=True):
        if column_name in targets or blank is None:
            typed[column_name], column_notes = column_of(column_name, cells, marks, column_name in targets)
        else:
            typed[column_name], column_notes = column_without(column_name, cells, marks, blank)
        notes += column_notes
    return Table(pd.DataFrame(typed), form, rows.last_lines, tuple(notes))


def _without_target(rows: Rows, targets: Collection[str]) -> NDArray[np.bool_] | None:
    """Tell which rows, (n,), have no value of any target; None if all have one, or there is no target."""
    import numpy as np

    columns = [cells for name, cells in zip(rows.names, rows.columns, strict=True) if name in targets]
    blank = [np.array([not text.strip() for text in cells.texts], dtype=bool)[cells.codes] for cells in columns]
    rows_without = np.all(blank, axis=0) if blank else np.zeros(0, dtype=bool)
    return rows_without if rows_without.any() else None

"""The records of a text → column names and rows of equal length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from upweight.cli.table_files.header import find_header, numbered_names, unique_names
from upweight.cli.table_files.layout import COMMENT
from upweight.cli.table_files.records import Record, records
from upweight.cli.table_files.table_format import TableFormat

SHOWN_CHARACTERS = 60  # of a line in a message


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a text file as texts, with the file's lines.

    Attributes:
        names: one per column, each its own.
        cells: one list of texts per row, as long as `names`.
        last_lines: the last line of each row in the file, from 1.
        form: the format, with header and trailing separator.
        notes: sentences about what was left out or renamed.
    """

    names: list[str]
    cells: list[list[str]]
    last_lines: list[int]
    form: TableFormat
    notes: tuple[str, ...]


def read_rows(text: str, form: TableFormat, header: int | None, name: str) -> Rows:
    """Split the text into rows. `header` is the line with the names, 0 for none, None if it is to be found out.

    Raises:
        ValueError: there is no row, or rows have different numbers of fields; the message names the line.
    """
    listed, notes = _without_comments(_listed(text, form, name))
    if header:
        listed = [record for record in listed if record.last_line >= header]
    if not listed:
        raise ValueError(
            f"expected {name} to be a table, got " + ("an empty file" if not header else f"no line {header} (--header)")
        )
    columns = Counter(len(record.fields) for record in listed).most_common(1)[0][0]
    if columns > 1:
        listed = [record for record in listed if not record.is_blank or len(record.fields) == columns]
    listed, trailing = _without_trailing(listed, columns)
    columns -= trailing
    first, rest = listed[0], listed[1:]
    has_row_names = bool(rest) and len(first.fields) == columns - 1 and header != 0
    _require_even(rest if has_row_names else listed, columns, form, name)
    if header is None:
        is_header = has_row_names or find_header(first.fields, [record.fields for record in rest], name)
        header = first.last_line if is_header else 0
    names = first.fields if header else numbered_names(columns)
    if has_row_names:
        names = ["", *names]
        notes.append(f"The header of {name} has one name fewer than its rows have fields: the first one was left out.")
    names, name_notes = unique_names(names, columns)
    body = rest if header else listed
    form = replace(form, trailing=bool(trailing), header=header)
    cells = [record.fields for record in body]
    if form.spaced or columns == 1:
        cells = [[field.strip() for field in row] if row else [""] for row in cells]
    return Rows(names, cells, [record.last_line for record in body], form, (*notes, *name_notes))


def _listed(text: str, form: TableFormat, name: str) -> list[Record]:
    """All records but the blank ones at the end."""
    try:
        listed = list(records(text, form))
    except ValueError as error:
        raise ValueError(
            f"{name}, {error}: a quotation mark is not closed or stands inside of a field; double it there, or name "
            "another separator with --sep"
        ) from None
    while listed and listed[-1].is_blank:
        listed.pop()
    return listed


def _without_comments(listed: list[Record]) -> tuple[list[Record], list[str]]:
    """The records without lines that begin with # and have another number of fields than most."""
    widths = Counter(len(record.fields) for record in listed if not record.is_blank)
    columns = widths.most_common(1)[0][0] if widths else 0
    comments = {
        record.last_line
        for record in listed
        if not record.is_blank and record.fields[0].startswith(COMMENT) and len(record.fields) != columns
    }
    notes = [f"Lines left out because they begin with #: {len(comments)}."] if comments else []
    return [record for record in listed if record.last_line not in comments], notes


def _without_trailing(listed: list[Record], columns: int) -> tuple[list[Record], int]:
    """The records without their last field, and 1, if that one is empty in all of them (the first may lack it)."""
    full = listed if len(listed[0].fields) == columns else listed[1:]
    if columns < 3 or not full or any(len(record.fields) == columns and record.fields[-1].strip() for record in full):
        return listed, 0
    return [
        Record(record.fields[: columns - 1], record.last_line) if len(record.fields) == columns else record
        for record in listed
    ], 1


def _require_even(listed: Sequence[Record], columns: int, form: TableFormat, name: str) -> None:
    """Raise ValueError for the first record that has another number of fields."""
    odd = next((record for record in listed if len(record.fields) != columns), None)
    if odd is None:
        return
    line = form.separator.join(odd.fields)
    shown = line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}…"
    raise ValueError(
        f"line {odd.last_line} of {name} has {_fields(len(odd.fields))}, and most lines have {columns}: {shown!r}; "
        "mend it, or say with --sep what separates the columns, or with --header in which line their names are"
    )


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"

"""The records of a text → column names and rows of equal length."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from upweight.cli.table_files.cells import Cells
from upweight.cli.table_files.even_text import even_columns
from upweight.cli.table_files.header import SAMPLE_ROWS, find_header, is_value, numbered_names, unique_names
from upweight.cli.table_files.layout import COMMENT
from upweight.cli.table_files.records import Records, read_records
from upweight.cli.table_files.table_format import ReadingOptions, TableFormat

SHOWN_CHARACTERS = 60  # of a line in a message
LINES_LISTED = 5
TITLE_LINES = 20  # that may stand above the names of the columns
RULE = re.compile(r"\s*[-=]{3,}[-=+ ]*")
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a text file as texts, with the file's lines.

    Attributes:
        names: one per column, each its own.
        columns: the cells of each column.
        last_lines: the last line of each row in the file.
        form: the format, with header and trailing separator.
        notes: sentences about what was left out or renamed.
    """

    names: list[str]
    columns: list[Cells]
    last_lines: list[int]
    form: TableFormat
    notes: tuple[str, ...]


def read_rows(text: str, form: TableFormat, options: ReadingOptions, name: str) -> Rows:
    """Split a text into rows.

    Raises:
        ValueError: there is no row, or rows have different numbers of fields; the message names the line.
    """
    rows = _even_rows(text, form, options, name)
    if rows is not None:
        return rows
    records = from_line(options.header or 0, _all_records(text, form, name), name)
    columns = _usual_width(records)
    records, notes = _without_comments(_without_rules(_without_blank_lines(records, columns)), columns)
    records, columns, trailing = _without_trailing(records, columns)
    return named_rows(records, columns, replace(form, trailing=trailing), options, name, notes)


def named_rows(
    records: Records, columns: int, form: TableFormat, options: ReadingOptions, name: str, notes: Sequence[str] = ()
) -> Rows:
    """The records with names for this number of columns: those of the first record if it is a header.

    Raises:
        ValueError: rows have different numbers of fields, or it is not clear whether there is a header.
    """
    names, body, form, notes = _named(records, columns, form, options, name, notes)
    fields: Iterable[Sequence[str]] = zip(*body.fields, strict=True) if body.fields else [()] * len(names)
    return Rows(names, list(map(Cells.of, fields)), body.last_lines, form, tuple(notes))


def _even_rows(text: str, form: TableFormat, options: ReadingOptions, name: str) -> Rows | None:
    """The rows of a text in which nothing has to be left out but a header; None for other texts."""
    columns = even_columns(text, form) if options.header in (None, 0, 1) else None
    if columns is None or not any(any(cells.texts) for cells in columns):
        return None
    if _ends_with_separators(columns) or _has_first_line_again(columns) or _has_rules(columns):
        return None
    count = len(columns[0].codes)
    beginning = [[cells.texts[code] for code in cells.codes[: 1 + SAMPLE_ROWS]] for cells in columns]
    records = Records(list(map(list, zip(*beginning, strict=True))), list(range(1, 2 + min(SAMPLE_ROWS, count - 1))))
    names, _, form, notes = _named(records, len(columns), form, options, name, ())
    if form.header:
        columns = [cells.without_first() for cells in columns]
    return Rows(names, columns, list(range(count + 1))[1 + bool(form.header) :], form, tuple(notes))


def _ends_with_separators(columns: list[Cells]) -> bool:
    return len(columns) > 2 and not any(map(str.strip, columns[-1].texts))


def _has_first_line_again(columns: list[Cells]) -> bool:
    """Whether another line has the fields of the first one, but for spaces."""
    import numpy as np

    is_equal = None
    for cells in columns:
        first = _plain_field(cells.texts[cells.codes[0]])
        codes = [code for code, text in enumerate(cells.texts) if _plain_field(text) == first]
        same = np.isin(cells.codes, codes)
        is_equal = same if is_equal is None else is_equal & same
        if is_equal.sum() == 1:
            return False
    return True


def _has_rules(columns: list[Cells]) -> bool:
    return all(any(map(RULE.fullmatch, cells.texts)) for cells in columns)


def _plain_field(text: str) -> str:
    return text.strip().removeprefix(BYTE_ORDER_MARK)


def _named(
    records: Records, columns: int, form: TableFormat, options: ReadingOptions, name: str, notes: Sequence[str]
) -> tuple[list[str], Records, TableFormat, Sequence[str]]:
    """(names, the records below them, format, notes) of these records."""
    header = options.header
    without_repeats, repeats = _without_repeats(records, columns)
    body = Records(without_repeats.fields[1:], without_repeats.last_lines[1:])
    has_row_names = header != 0 and columns > 2 and _have_names_of_rows(records.fields[0], body.fields)
    _require_even(body if has_row_names else without_repeats, columns, form, name)
    first, first_line = records.fields[0], records.last_lines[0]
    mentioned = {*options.columns}
    if (
        form.kind == "text"
        and columns == 1
        and mentioned
        and mentioned.isdisjoint([first[0].strip(), *numbered_names(1)])
    ):
        raise ValueError(
            f"no separator was found in {name}, whose first line is {first[0][:SHOWN_CHARACTERS]!r}; say with --sep "
            "what separates its columns"
        )
    if header is None:
        _require_no_later_header(without_repeats, mentioned, name)
        header = has_row_names or find_header(first, body.fields, options.columns, name)
    names = first if header else numbered_names(columns)
    if has_row_names:
        names = ["", *names]
        notes = [*notes, f"Line {first_line} of {name} has a name for every column but the first."]
    if header and repeats:
        listed = ", ".join(map(str, repeats[:LINES_LISTED])) + (", …" if len(repeats) > LINES_LISTED else "")
        notes = [*notes, f"Lines left out because they repeat the names of the columns: {len(repeats):,} ({listed})."]
    repeated = mentioned & {text for text, count in Counter(map(str.strip, names)).items() if count > 1}
    if repeated:
        raise ValueError(f"{name} has several columns called {min(repeated)}; rename all but one")
    names, name_notes = unique_names(names, columns)
    form = replace(form, header=first_line if header else 0)
    return names, body if header else records, form, (*notes, *name_notes)


def _without_repeats(records: Records, columns: int) -> tuple[Records, list[int]]:
    """(records, lines of those left out): without those that repeat the first one, as in files put one after another.

    In a table of one column nothing is left out, because a value may well be equal to the name.
    """
    first, *others = records.fields
    plain = list(map(_plain_field, first))
    is_other = [
        columns == 1 or _plain_field(each[0]) != plain[0] or list(map(_plain_field, each)) != plain for each in others
    ]
    is_other.insert(0, True)
    lines = [line for line, keep in zip(records.last_lines, is_other, strict=True) if not keep]
    return records.where(is_other), lines


def _require_no_later_header(records: Records, mentioned: set[str], name: str) -> None:
    """Raise ValueError if the columns that the user mentions are not in the first line, but in one soon after it."""
    if not mentioned or mentioned.issubset(
        {*map(str.strip, records.fields[0]), *numbered_names(len(records.fields[0]))}
    ):
        return
    for fields, line in zip(records.fields[1:TITLE_LINES], records.last_lines[1:TITLE_LINES], strict=True):
        names = {field.strip() for field in fields}
        if (
            mentioned.issubset(names)
            and "" not in names
            and len(names) == len(fields)
            and not any(map(is_value, names))
        ):
            raise ValueError(
                f"the first line of {name} has no column {min(mentioned)!r}, and line {line} has; say --header {line} "
                "if the names of the columns are there"
            )


def _have_names_of_rows(first: list[str], body: list[list[str]]) -> bool:
    """Whether the first record is one field short, and the first fields of the others are all different."""
    return bool(body) and len(first) == len(body[0]) - 1 and len({row[0] for row in body}) == len(body)


def _all_records(text: str, form: TableFormat, name: str) -> Records:
    try:
        return read_records(text, form)
    except ValueError as error:
        raise ValueError(
            f"{name}, {error}: a quotation mark is not closed or stands inside of a field; double it there, or name "
            "another separator with --sep"
        ) from None


def from_line(line: int, records: Records, name: str) -> Records:
    """The records from this line on. Raises ValueError if they are all blank."""
    records = records.where([last_line >= line for last_line in records.last_lines])
    if not any(map(any, records.fields)):
        got = f"no line {line}, as --header says" if line > 1 else "an empty file"
        raise ValueError(f"expected {name} to be a table, got {got}")
    return records


def _usual_width(records: Records) -> int:
    """The most frequent number of fields of records that are not blank."""
    return Counter(len(record) for record in records.fields if any(record)).most_common(1)[0][0]


def _without_blank_lines(records: Records, columns: int) -> Records:
    """The records without blank lines; in a table of one column, only without those at the end."""
    fields = records.fields
    if columns > 1:
        return records.where([len(record) == columns or bool("".join(record).strip()) for record in fields])
    count = max(number for number, record in enumerate(fields, 1) if any(record))
    return Records([record or [""] for record in fields[:count]], records.last_lines[:count])


def _without_rules(records: Records) -> Records:
    """Leave out lines of hyphens, as they stand below the names of printed tables."""
    return records.where([not all(map(RULE.fullmatch, record)) for record in records.fields])


def _without_comments(records: Records, columns: int) -> tuple[Records, list[str]]:
    """The records without lines that begin with # and have another number of fields than most."""
    is_row = [len(record) == columns or not record[0].startswith(COMMENT) for record in records.fields]
    comments = is_row.count(False)
    return records.where(is_row), [f"Lines left out because they begin with #: {comments:,}."] if comments else []


def _without_trailing(records: Records, columns: int) -> tuple[Records, int, bool]:
    """(records, columns, whether rows ended with a separator): without the last field if it is empty in all rows.

    The first record, the header, may lack that field.
    """
    full = [record for record in records.fields if len(record) == columns]
    has_all = len(full) >= len(records.fields) - 1 and columns > 2
    if not has_all or any(record[-1].strip() for record in full):
        return records, columns, False
    return Records([record[: columns - 1] for record in records.fields], records.last_lines), columns - 1, True


def _require_even(records: Records, columns: int, form: TableFormat, name: str) -> None:
    """Raise ValueError for the first record that has another number of fields."""
    for fields, line in zip(*records, strict=True):
        if len(fields) != columns:
            text = form.separator.join(fields)
            shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
            count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
            raise ValueError(
                f"line {line} of {name} has {count}, and most lines have {columns}: {shown!r}; mend it, or say with "
                "--sep what separates the columns, or with --header in which line their names are"
            )

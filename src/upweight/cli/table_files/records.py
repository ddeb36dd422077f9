"""A text → the records of a table, each with the lines that it takes up in the file."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from upweight.cli.table_files.table_format import Quoting, TableFormat

QUOTING: dict[Quoting, dict[str, Any]] = {
    "doubled": {"doublequote": True},
    "escaped": {"doublequote": False, "escapechar": "\\"},
    "none": {"quoting": csv.QUOTE_NONE},
}
SPACES = re.compile(r'("[^"]*")|[ \t]+')
LINE_MARGINS = re.compile(r"^ | (?=\r?$)", re.MULTILINE)
MAX_FIELD_CHARACTERS = min(sys.maxsize, 2**31 - 1)


class Records(NamedTuple):
    """The records of a text, blank ones included: the fields of each, and its last line in the file, from 1."""

    fields: list[list[str]]
    last_lines: list[int]

    def where(self, chosen: list[bool]) -> Records:
        """The records for which it is true."""
        if all(chosen):
            return self
        pairs = [pair for pair, is_chosen in zip(zip(*self, strict=True), chosen, strict=True) if is_chosen]
        return Records([fields for fields, _ in pairs], [line for _, line in pairs])


def read_records(text: str, form: TableFormat, last: Records | None = None) -> Records:
    """The records of a text of this format. Those before an error are put into `last`, if it is given.

    Raises ValueError, with the line, for a quotation mark that is not closed or stands inside of a field.
    """
    fields, last_lines = last or Records([], [])
    with _fields_of_any_length():
        try:
            reader = _reader(text, form)
            fields += reader
            if reader.line_num == len(fields):
                last_lines += range(1, len(fields) + 1)
                return Records(fields, last_lines)
            reader = _reader(text, form)
            last_lines += [reader.line_num for _ in reader]
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None
    return Records(fields, last_lines)


def _reader(text: str, form: TableFormat) -> Any:
    if form.separator == " ":  # any number of spaces and tabs is one separator
        text = LINE_MARGINS.sub("", SPACES.sub(lambda match: match[1] or " ", text))
    settings: dict[str, Any] = {"delimiter": form.separator, "skipinitialspace": form.spaced, "strict": True}
    return csv.reader(io.StringIO(text, newline=""), **settings, **QUOTING[form.quoting])


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """Lift the limit of the csv module, which is one for the whole process, for a while."""
    before = csv.field_size_limit(MAX_FIELD_CHARACTERS)
    try:
        yield
    finally:
        csv.field_size_limit(before)

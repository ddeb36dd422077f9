"""A text → the records of a table, each with the lines that it takes up in the file."""

from __future__ import annotations

import csv
import io
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


class Record(NamedTuple):
    """One record of a text file: its fields, and its last line in the file, from 1. A blank line has no fields."""

    fields: list[str]
    last_line: int

    @property
    def is_blank(self) -> bool:
        """Whether the record has nothing in it."""
        return not any(self.fields)


def records(text: str, form: TableFormat) -> Iterator[Record]:
    """The records of a text, blank ones included. Raises ValueError for a field that is not closed."""
    settings: dict[str, Any] = {"delimiter": form.separator, "skipinitialspace": form.spaced, "strict": True}
    reader = csv.reader(io.StringIO(text, newline=""), **settings, **QUOTING[form.quoting])
    with _fields_of_any_length():
        while True:
            try:
                yield Record(next(reader), reader.line_num)
            except StopIteration:
                return
            except csv.Error as error:
                raise ValueError(f"line {reader.line_num}: {error}") from None


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """Lift the limit of the csv module, which is one for the whole process, for a while."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)

"""A line between the names of the columns and the rows: units, questions, or a second line of names."""

from __future__ import annotations

from dataclasses import replace

from upweight.cli.table_files.cells import Cells
from upweight.cli.table_files.header import MIN_ROWS, is_value
from upweight.cli.table_files.numbers import MISSING_WORDS
from upweight.cli.table_files.rows import Rows

MIN_COLUMNS = 2  # columns of numbers that have a text in this line alone
SHOWN = 30  # characters of a cell in a note


def without_units(rows: Rows, name: str) -> Rows:
    """The rows without the first one, if it alone has texts where all other rows have numbers or dates.

    It is so in two columns at least, and no column has a number or a date in the first row. A file without names has
    no such line.
    """
    if not rows.form.header or len(rows.last_lines) <= MIN_ROWS:
        return rows
    texts = dict[str, str]()
    for column, cells in zip(rows.names, rows.columns, strict=True):
        first = cells.texts[cells.codes[0]].strip()
        if first and is_value(first):
            return rows
        if first and first not in MISSING_WORDS and _has_values_below(cells):
            texts[column] = first
    if len(texts) < MIN_COLUMNS:
        return rows
    column, text = next(iter(texts.items()))
    others = "1 other column has" if len(texts) == 2 else f"{len(texts) - 1:,} other columns have"
    note = (
        f"Line {rows.last_lines[0]} of {name} was left out: {column} has {text[:SHOWN]!r} there and values in all "
        f"other rows, and {others} such a text too."
    )
    columns = [cells.without_first() for cells in rows.columns]
    return replace(rows, columns=columns, last_lines=rows.last_lines[1:], notes=(*rows.notes, note))


def _has_values_below(cells: Cells) -> bool:
    """Whether all cells but the first are numbers or dates, or missing."""
    others = cells.without_first().texts
    values = [text for text in others if text.strip() not in MISSING_WORDS and text.strip()]
    return len(values) > 1 and all(map(is_value, values))

"""Where the cells of a record stand in its text, and how a cell is written."""

from __future__ import annotations

from upweight.cli.table_files.table_format import TableFormat

QUOTE, ESCAPE, SPACE = '"', "\\", " "
LINE_ENDS = "\r\n"


def cell_spans(record: str, form: TableFormat) -> list[tuple[int, int]]:
    """(start, end) of every cell in the text of a record, with its quotation marks and without spaces before it."""
    spans, start = [], 0
    while True:
        while form.spaced and record[start : start + 1] == SPACE:
            start += 1
        end = _end(record, start, form)
        spans.append((start, end))
        if record[end : end + 1] != form.separator:
            return spans
        start = end + 1


def quoted_like(cell: str, text: str, form: TableFormat) -> str:
    """The text as a cell, in quotation marks if `cell` is, or if it needs them."""
    special = {form.separator, QUOTE, *LINE_ENDS, *(ESCAPE if form.quoting == "escaped" else "")}
    needs_quotes = not special.isdisjoint(text) or text.startswith(SPACE)
    if form.quoting == "none" or not (needs_quotes or cell.startswith(QUOTE)):
        return text
    if form.quoting == "escaped":
        return QUOTE + text.replace(ESCAPE, ESCAPE * 2).replace(QUOTE, ESCAPE + QUOTE) + QUOTE
    return QUOTE + text.replace(QUOTE, QUOTE * 2) + QUOTE


def _end(record: str, start: int, form: TableFormat) -> int:
    """The position after the cell that starts here."""
    place, is_open = start, False
    has_quotes = form.quoting != "none" and record[start : start + 1] == QUOTE
    while place < len(record):
        character = record[place]
        if form.quoting == "escaped" and character == ESCAPE:
            place += 2
            continue
        if has_quotes and character == QUOTE:
            is_open = not is_open  # a doubled quotation mark closes and opens
        elif not is_open and (character == form.separator or character in LINE_ENDS):
            return place
        place += 1
    return len(record)

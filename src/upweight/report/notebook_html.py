"""Results in a notebook: the first rows of their table, with the labels and contents of the examples."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from upweight.core.examples import Examples, Id
from upweight.core.notebook_table import TABLE
from upweight.report.pictures import encoded, sample_pictures, scale_of, shown_pixels
from upweight.report.previews import excerpt
from upweight.report.wording import MINUS, count, label_text, significant

ROWS_SHOWN = 12
COLUMNS_SHOWN = 9
WARNINGS_SHOWN = 5
PICTURE_SIDE = 40  # pixels
TEXT_SHOWN = 90  # characters of a cell


def notebook_html(result: Any) -> str:
    """The result as HTML: its repr, its warnings, and the first rows of its table."""
    warnings = _warnings(result)
    notes = "".join(f"<li>{escape(text)}</li>" for text in warnings[:WARNINGS_SHOWN])
    more = len(warnings) - WARNINGS_SHOWN
    notes += f"<li>and {more} more</li>" if more > 0 else ""
    title = f"<p><b>{escape(repr(result))}</b></p>"
    return title + (f"<ul>{notes}</ul>" if notes else "") + _table(result)


def _table(result: Any) -> str:
    columns: Mapping[str, Any] = result.to_columns()
    known = [name for name, values in columns.items() if any(value is not None for value in values)]
    names = known[:COLUMNS_SHOWN]
    length = len(columns[names[0]]) if names else 0
    if not length:
        return ""
    sides = {name: _Side(getattr(result, attribute)) for name, attribute in result._examples.items() if name in names}
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = []
    for row in range(min(length, ROWS_SHOWN)):
        cells = (sides[n].cell(columns[n][row]) if n in sides else _cell(columns[n][row]) for n in names)
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    left = []
    if length > ROWS_SHOWN:
        left.append(f"the first {ROWS_SHOWN} of {count(length, 'row')}")
    if len(columns) > COLUMNS_SHOWN:
        left.append(f"{len(names)} of {count(len(columns), 'column')}")
    note = (
        f"<p>{', '.join(left)}; all are in <code>to_pandas()</code>, <code>to_polars()</code> and Arrow</p>"
        if left
        else ""
    )
    return f"{TABLE}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{note}"


class _Side:
    """The examples behind a column of ids."""

    def __init__(self, examples: Examples | None) -> None:
        self._examples = examples
        self._scale: Any = None
        self._is_sampled = False

    def cell(self, identifier: Any) -> str:
        """Id, label, and a small picture or one line of the contents."""
        shown = f"<b>{escape(str(identifier))}</b>"
        if self._examples is None or identifier is None:
            return shown if identifier is not None else _cell(None)
        try:
            label, content = self._examples.label(identifier), self._content(identifier)
        except KeyError:  # a group, or the id of nothing
            return shown
        named = "" if label is None else f" <small>label {escape(str(label_text(label)))}</small>"
        return f"{shown}{named}<br>{content}"

    def _content(self, identifier: Id) -> str:
        assert self._examples is not None
        preview = self._examples.preview(identifier)
        if preview.kind != "image":
            return f"<small>{escape(excerpt(preview))}</small>"
        if not self._is_sampled:
            self._scale, self._is_sampled = scale_of([sample_pictures(self._examples, 100)]), True
        pixels = shown_pixels(preview, self._scale, PICTURE_SIDE)
        if pixels is None:
            return ""
        uri = encoded(pixels, lossless=pixels.ndim == 2)
        style = f"height: {PICTURE_SIDE}px; width: auto; max-width: none; image-rendering: pixelated"
        return f'<img src="{uri}" alt="" style="{style}">'


def _cell(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, float):
        return significant(value, 4)
    if isinstance(value, list | tuple):
        text = ", ".join(_cell(part) for part in value[:6]) + (", …" if len(value) > 6 else "")
        return text
    text = label_text(value) or ""
    text = text if len(text) <= TEXT_SHOWN else text[: TEXT_SHOWN - 1] + "…"
    return escape(text if isinstance(value, str) else text.replace("-", MINUS))


def _warnings(result: Any) -> list[str]:
    diagnostics = getattr(result, "diagnostics", None)
    warnings_of_result = (
        diagnostics.get("warnings", ()) if isinstance(diagnostics, Mapping) else getattr(result, "warnings", ())
    )
    return [str(text) for text in (*warnings_of_result, *(getattr(result, "notes", None) or ()))]

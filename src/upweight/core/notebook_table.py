"""How results are shown in a notebook: a title, warnings and a table."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

# Not every notebook has space between the columns of a table.
TABLE = '<table style="border-collapse: separate; border-spacing: 12px 2px">'


def notebook_table(
    title: str, rows: Iterable[Sequence[Any]], head: Sequence[str] = (), warnings: Sequence[str] = ()
) -> str:
    """HTML of a title, a list of warnings if there are some, and a table of these cells."""
    notes = "".join(f"<li>{html.escape(warning)}</li>" for warning in warnings)
    lines = [_line("th", head)] if head else []
    lines += [_line("td", row) for row in rows]
    return f"<p><b>{html.escape(title)}</b></p>{f'<ul>{notes}</ul>' if notes else ''}{TABLE}{''.join(lines)}</table>"


def _line(tag: str, cells: Sequence[Any]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)}</tr>"

"""Tables of effects with bars, intervals and actual values, and the page of an application made of such tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from upweight.core.scores import Unit
from upweight.evaluate.verdict import Verdict
from upweight.report.document import rendered
from upweight.report.wording import UNCONFIRMED, significant

MAX_ROWS = 200  # of one table
MAX_TABLES = 20  # of one page
SCALE_START, SCALE_WIDTH = 4, 192  # of the drawing, which is 200 wide


@dataclass(frozen=True)
class EffectRow:
    """One row: its name, its cells as text, the effect, interval and actual value that are drawn, and an excerpt."""

    name: str
    cells: Sequence[str]
    effect: float
    interval: tuple[float, float] | None = None
    actual: float = math.nan
    excerpt: str = ""


def effect_table(
    title: str, noun: str, columns: Sequence[str], drawing: str, rows: Sequence[EffectRow], text: str = ""
) -> dict[str, Any]:
    """A table whose rows are drawn on one scale. `noun` heads the column of names, `drawing` that of the drawings."""
    ends = [0.0]
    for row in rows:
        ends += [row.effect, *(row.interval or ()), *([row.actual] if math.isfinite(row.actual) else [])]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return round(SCALE_START + SCALE_WIDTH * (value - low) / span, 2)

    drawn = []
    for row in rows:
        is_checked = math.isfinite(row.actual)
        actual = f", by retraining {signed(row.actual)}" if is_checked else ""
        drawn.append(
            {
                "name": row.name,
                "cells": row.cells,
                "excerpt": row.excerpt,
                "description": f"effect {signed(row.effect)}{actual}",
                "bar": {
                    "x": min(x(0.0), x(row.effect)),
                    "width": abs(x(row.effect) - x(0.0)),
                    "positive": row.effect > 0,
                },
                "range": None if row.interval is None else (x(row.interval[0]), x(row.interval[1])),
                "point": x(row.actual) if is_checked else None,
            }
        )
    return {
        "title": title,
        "noun": noun,
        "columns": columns,
        "drawing": drawing,
        "rows": drawn,
        "text": text,
        "zero": x(0.0),
        "pictures": [],
    }


def text_table(
    title: str, noun: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], text: str = ""
) -> dict[str, Any]:
    """A table of words without drawings. `noun` heads the column of names; each row is (name, cells)."""
    plain = [{"name": name, "cells": list(cells), "excerpt": ""} for name, cells in rows]
    return {
        "title": title,
        "noun": noun,
        "columns": columns,
        "drawing": "",
        "rows": plain,
        "text": text,
        "zero": 0.0,
        "pictures": [],
    }


def application_page(
    title: str,
    facts: Sequence[str],
    definition: str,
    sections: Sequence[dict[str, Any]],
    warnings: Sequence[str],
    about: Sequence[str],
    description: Sequence[str],
) -> str:
    """The page as text: facts, the definition of an effect, one table per section, and notes at the end."""
    return rendered(
        "application.html.j2",
        ("application.css",),
        (),
        None,
        description,
        title=title,
        facts=facts,
        definition=definition,
        sections=sections,
        warnings=warnings,
        about=about,
    )


def unit_text(unit: Unit, verdict: Verdict | None = None) -> str:
    """The meaning of numbers of this unit, after this verdict of retraining."""
    if verdict is Verdict.FAILS:
        return UNCONFIRMED
    return "sizes in the measurement’s own unit" if unit == Unit.EFFECT else "sign and order, not size"


def signed(value: float) -> str:
    """A number with its sign and a true minus; a dash if there is none."""
    return significant(value, 3, "+") if math.isfinite(value) else "–"

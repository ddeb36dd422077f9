"""Searching and sorting examples: their texts in lower case, and the reading order of ids and labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.report.table_columns import shown_of, table_of
from upweight.report.wording import cell_text, label_text

MAX_TEXT = 4_000  # characters of one example that are searched
MAX_COLUMNS = 60  # of a table, that are searched


class Searchable:
    """The ids, labels and contents of a set of examples, for a search of a piece of text in any case.

    Of every text the first 4,000 characters are searched, of every row the first 60 columns; of pictures, and of arrays
    of other shapes, only ids and labels.
    """

    def __init__(self, examples: Examples) -> None:
        ids = [str(i) for i in examples.ids.tolist()]
        self._texts = [
            f"{identifier}\n{label or ''}\n{content[:MAX_TEXT]}".lower()
            for identifier, label, content in zip(ids, _labels(examples), _contents(examples), strict=True)
        ]

    def matches(self, text: str) -> NDArray[np.bool_]:
        """Whether each example has this text, (n,)."""
        needle = text.strip().lower()
        return np.fromiter((needle in own for own in self._texts), dtype=bool, count=len(self._texts))


def reading_order(names: Sequence[str]) -> NDArray[np.intp]:
    """The rank of every name in reading order, (n,): numbers by value, everything else by its digits and letters."""
    values = [_number(name) for name in names]
    keys: list[Any] = values if None not in values else [_natural(name) for name in names]
    order = sorted(range(len(names)), key=keys.__getitem__)
    ranks = np.empty(len(names), dtype=np.intp)
    ranks[order] = np.arange(len(names))
    return ranks


def _number(name: str) -> float | None:
    try:
        return float(name.replace("−", "-"))
    except ValueError:
        return None


def _natural(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def _labels(examples: Examples) -> list[str | None]:
    if examples.y is None:
        return [None] * len(examples)
    if examples.y.ndim > 1:
        return [label_text(y) for y in examples.y.tolist()]
    return [label_text(examples.labels.get(y, y)) for y in examples.y.tolist()]


def _contents(examples: Examples) -> Sequence[str]:
    shown = shown_of(examples)
    table = table_of(examples)
    if table is not None:
        columns = range(min(table.width, MAX_COLUMNS))
        cells = [[f"{table.names[c]} {cell_text(value)}" for value in table.values(c)] for c in columns]
        return [", ".join(row) for row in zip(*cells, strict=True)]
    if isinstance(shown, list | tuple) and all(isinstance(text, str) for text in shown):
        return shown
    if isinstance(shown, np.ndarray) and shown.ndim == 1 and shown.dtype.kind in "UO":
        return [str(text) for text in shown.tolist()]
    return [""] * len(examples)

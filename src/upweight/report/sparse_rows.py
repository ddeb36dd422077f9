"""Rows of a sparse table on a page: their values that are not 0, the largest first."""

from __future__ import annotations

from typing import Any

import numpy as np

from upweight.core.examples import Examples, Id
from upweight.report.table_columns import shown_of
from upweight.report.wording import cell_text

MAX_VALUES = 200  # of one row


class SparseRows:
    """The rows of one side of a page."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        self._rows = shown_of(examples).tocsr()

    def entry(self, identifier: Id) -> dict[str, Any]:
        """`pairs` of (column, value), and how many values that are not 0 are left out (`more`)."""
        row = self._rows[self._examples.positions([identifier])]  # a copy
        row.sum_duplicates()
        places = np.flatnonzero(row.data)
        order = places[np.argsort(-np.abs(row.data[places]), kind="stable")]
        names = self._examples.names if self._examples.shown is None else None
        pairs = [
            [names[column] if names else f"x{column}", cell_text(value)]
            for column, value in zip(row.indices[order].tolist(), row.data[order].tolist(), strict=True)
        ]
        return {"kind": "row", "pairs": pairs[:MAX_VALUES], "more": len(pairs[MAX_VALUES:]), "sparse": True}

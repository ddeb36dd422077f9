"""How strongly each column of a table is related to the labels: a page shows the columns that matter first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.report.table_columns import Table, tables_of
from upweight.report.wording import cell_text

Array = NDArray[np.float64]
MAX_ROWS = 2_000  # of the training set and of the queries, from which columns are chosen
MAX_CELLS = 2_000_000  # read to choose columns; of wide tables fewer rows are read
MAX_LABELS = 50  # classes or targets compared with the columns
PRIOR_ROWS = 10  # rows of the mean label that are added to every category, so that rare ones do not come first


@dataclass(frozen=True)
class Column:
    """One column and the label that it alone would predict, as a shift from the mean in standard deviations.

    Attributes:
        position: of the column in the table.
        slope, mean: of a column of numbers; the shift of a value is slope · (value − mean).
        shifts: of a column of categories: text → shift; a value that is not listed has none.
        strength: the root of the mean squared shift of the queries.
    """

    position: int
    slope: float = 0.0
    mean: float = 0.0
    shifts: dict[str, float] = field(default_factory=dict)
    strength: float = 0.0


def deciding_columns(train: Examples, queries: Examples) -> list[Column]:
    """All columns of the table, the strongest first; none for inputs that are not a table of rows.

    The shift is that of the label to which the column is most strongly related. Without labels, the shift of a number
    is its distance from the training mean in standard deviations, and that of a category its rarity.
    """
    tables = tables_of(train, queries)
    if tables is None:
        return []
    known, new = tables
    row_limit = max(50, min(MAX_ROWS, MAX_CELLS // max(1, known.width)))
    rows = np.unique(np.linspace(0, len(train) - 1, row_limit).astype(int))
    known, new = known.take(rows), new.take(np.unique(np.linspace(0, len(queries) - 1, row_limit).astype(int)))
    labels = None if train.y is None else _standardised(_label_columns(train.y[rows]))[0]
    numeric = known.numeric & new.numeric
    columns = _of_numbers(known, new, np.flatnonzero(numeric), labels)
    columns += [_of_categories(known, new, column, labels) for column in np.flatnonzero(~numeric).tolist()]
    return sorted(columns, key=lambda column: (-column.strength, column.position))


def _of_numbers(known: Table, new: Table, positions: NDArray[np.intp], labels: Array | None) -> list[Column]:
    z, means, spreads = _standardised(known.numbers(positions))
    slopes = 1.0 / spreads
    if labels is not None:
        correlations = np.abs(z.T @ labels).max(axis=1, initial=0.0) / len(z)
        slopes = slopes * np.sqrt(np.maximum(correlations**2 - 1 / len(z), 0.0))  # minus chance
    distances = np.sqrt((np.nan_to_num(new.numbers(positions) - means, posinf=0.0, neginf=0.0) ** 2).mean(axis=0))
    return [
        Column(int(position), float(slope), float(mean), strength=float(slope * distance))
        for position, slope, mean, distance in zip(positions, slopes, means, distances, strict=True)
    ]


def _of_categories(known: Table, new: Table, position: int, labels: Array | None) -> Column:
    code_of: dict[str, int] = {}
    codes = np.array([code_of.setdefault(text, len(code_of)) for text in map(cell_text, known.values(position))])
    counts = np.bincount(codes, minlength=len(code_of))
    if labels is None:
        by_code = 1.0 - counts / len(codes)
    else:
        sums = np.stack([np.bincount(codes, label, minlength=len(code_of)) for label in labels.T], axis=1)
        means = sums / (counts + PRIOR_ROWS)[:, None]
        best = np.abs((means**2 * counts[:, None]).sum(axis=0)).argmax()
        by_code = means[:, best]
    shifts = dict(zip(code_of, by_code.tolist(), strict=True))
    of_queries = np.array([shifts.get(text, 0.0) for text in map(cell_text, new.values(position))])
    return Column(position, shifts=shifts, strength=float(np.sqrt((of_queries**2).mean())))


def _standardised(values: Array) -> tuple[Array, Array, Array]:
    """(values with mean 0 and variance 1, means, standard deviations); constants and missing values become 0."""
    finite = np.where(np.isfinite(values), values, np.nan)
    counts = np.maximum(np.isfinite(values).sum(axis=0), 1)
    mean = np.nansum(finite, axis=0) / counts
    centred = np.nan_to_num(finite - mean)
    spread = np.sqrt((centred**2).sum(axis=0) / counts)
    spread = np.where(spread > 1e-12 * np.maximum(np.abs(mean), 1e-300), spread, np.inf)
    return centred / spread, mean, spread


def _label_columns(y: NDArray[Any]) -> Array:
    """Regression targets as they are, classes as one column of zeros and ones each."""
    if y.ndim > 1 or y.dtype.kind == "f":
        return np.asarray(y, dtype=np.float64).reshape(len(y), -1)[:, :MAX_LABELS]
    classes, counts = np.unique(y, return_counts=True)
    return np.asarray(y[:, None] == classes[np.argsort(-counts, kind="stable")[:MAX_LABELS]], dtype=np.float64)

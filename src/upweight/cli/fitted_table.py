"""A default model fitted on most rows of a table; the other rows are held out, as queries."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from upweight.cli.column_names import alternatives
from upweight.cli.column_notes import sentences
from upweight.cli.default_models import MODELS, default_pipeline, target_kind
from upweight.cli.held_out_quality import HeldOutQuality, held_out_quality
from upweight.cli.table_columns import TableColumns, read_columns
from upweight.cli.table_targets import Target, TargetKind, read_target
from upweight.core.examples import Examples

if TYPE_CHECKING:
    import pandas

HELD_OUT_SHARE = 0.2  # of the rows, which become queries

log = logging.getLogger("upweight")


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model is fitted, to which columns and to which kind of target; None and empty: what suits the table."""

    model: str | None = None
    kind: TargetKind | None = None
    use: Collection[str] = ()
    leave_out: Collection[str] = ()


@dataclass(frozen=True, eq=False)
class FittedTable:
    """A default model on a table: its name, the estimator, its training rows, and the held-out rows.

    Attributes:
        notes: sentences about rows and columns that were left out or read in another form.
        row_ids: what the ids of the rows are, after "Rows are named by"; empty if nobody needs to be told.
    """

    name: str
    estimator: Any
    train: Examples
    held_out: Examples
    target: Target
    columns: TableColumns
    quality: HeldOutQuality
    notes: tuple[str, ...]
    row_ids: str = ""

    @property
    def description(self) -> tuple[str, ...]:
        """What the model is, how good it is, and what the ids of rows are: a sentence each."""
        used = len(self.columns.names)
        fitted = f"Model: {MODELS[self.name].title} of {self.target.description}, on {used:,} column{'s' * (used > 1)}"
        ids = (f"Rows are named by {self.row_ids}.",) if self.row_ids else ()
        return f"{fitted}, trained on {len(self.train):,} rows.", self.quality.sentence, *ids

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: `name`, `target`, `kind`, `columns`, `row_ids`, and those of its quality."""
        return {
            "name": self.name,
            "target": self.target.name,
            "kind": self.target.kind,
            "columns": self.columns.names,
            "row_ids": self.row_ids,
            **self.quality.as_dict(),
        }


def fit_table(
    frame: pandas.DataFrame,
    target: str,
    queries: Collection[str] = (),
    seed: int = 0,
    choice: ModelChoice | None = None,
) -> FittedTable:
    """Fit a model on four fifths of the rows: by default logistic regression for classes, ridge regression for numbers.

    Rows whose id, as text, is among `queries` are always held out.

    Raises:
        ValueError: a target or columns that no model can be fitted to, or a model that is not for this target.
        KeyError: a column that the table does not have.
    """
    choice = choice or ModelChoice()
    _require_columns(frame, target, choice)
    is_known = frame[target].notna().to_numpy()
    known = frame[is_known]
    notes = [] if is_known.all() else [f"Rows left out because their {target} is missing: {(~is_known).sum():,}."]
    read = read_target(target, known[target], target_kind(choice.model, choice.kind))
    columns = read_columns(known.drop(columns=target), choice.use, choice.leave_out)
    name = choice.model or ("logistic" if read.kind == "classes" else "ridge")
    examples, infinite = _examples(known, columns, read, MODELS[name].counts_classes)
    requested = np.array([str(i) in queries for i in examples.ids.tolist()])
    is_held_out = _held_out(read.y, requested, seed, read.kind == "number")
    train, held_out = examples.take(~is_held_out), examples.take(is_held_out)
    estimator, trouble = _fitted(default_pipeline(name, columns, read.kind, seed), train, name)
    predicted = np.asarray(estimator.predict(held_out.x)).reshape(-1)
    quality = held_out_quality(predicted, held_out.y, train.y, read.kind == "number")  # type: ignore[arg-type]
    log.info("%s on %d rows: %s", type(estimator[-1]).__name__, len(train), columns)
    return FittedTable(
        name,
        estimator,
        train,
        held_out,
        read,
        columns,
        quality,
        (*notes, *sentences(columns.notes), *infinite, *trouble),
    )


def _require_columns(frame: pandas.DataFrame, target: str, choice: ModelChoice) -> None:
    for name in (target, *choice.use, *choice.leave_out):
        if name not in frame.columns:
            raise KeyError(f"the table has no column {name!r}; {alternatives(name, list(map(str, frame.columns)))}")
    if target in (*choice.use, *choice.leave_out):
        raise ValueError(f"{target} is the target; name other columns with --use and --leave-out")
    both = [name for name in choice.use if name in choice.leave_out]
    if both:
        raise ValueError(f"{both[0]} is named by --use and by --leave-out; name it once")


def _examples(
    frame: pandas.DataFrame, columns: TableColumns, target: Target, counts_classes: bool
) -> tuple[Examples, list[str]]:
    """The rows with the columns that are read, and notes on values that were replaced."""
    x, notes = _clean(frame, columns)
    shown = x[columns.texts[0]].tolist() if columns.texts == list(x.columns) and x.shape[1] == 1 else None
    y, labels = target.y, None
    if counts_classes and target.kind == "classes":
        values, y = np.unique(target.y, return_inverse=True)
        labels = {code: str(value) for code, value in enumerate(values.tolist())}
    return Examples(x, y, ids=frame.index.to_numpy(), shown=shown, labels=labels), notes


def _clean(frame: pandas.DataFrame, columns: TableColumns) -> tuple[pandas.DataFrame, list[str]]:
    """Numbers as int or as floats with NaN, everything else as text, which every step of a default model can read."""
    from pandas.api import types

    cleaned: dict[str, Any] = {}
    notes = []
    for name in columns.names:
        column = frame[name]
        if name not in columns.numbers:
            words = column.astype(object).where(column.notna(), "missing" if name in columns.categories else "")
            cleaned[name] = words.astype(str).astype(object)
        elif types.is_integer_dtype(column) and not column.hasnans:
            cleaned[name] = column.to_numpy().astype(np.int64)
        else:
            numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
            infinite = np.isinf(numbers)
            cleaned[name] = np.where(infinite, np.nan, numbers)
            if infinite.any():
                notes.append(f"Column {name}: {infinite.sum():,} infinite numbers are read as missing.")
    return type(frame)({name: cleaned[name] for name in frame.columns if name in cleaned}, index=frame.index), notes


def _held_out(y: NDArray[Any], requested: NDArray[np.bool_], seed: int, is_number: bool) -> NDArray[np.bool_]:
    is_held_out = requested.copy()
    is_held_out[np.random.default_rng(seed).permutation(len(y))[: round(HELD_OUT_SHARE * len(y))]] = True
    if not is_number:
        is_held_out &= np.isin(y, y[~is_held_out])  # a model cannot predict a class that it was not trained on
    return is_held_out


def _fitted(pipeline: Any, train: Examples, name: str) -> tuple[Any, list[str]]:
    """The fitted pipeline, and a sentence if its training did not converge."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        fitted = pipeline.fit(train.x, train.y)
    if not any(issubclass(warning.category, ConvergenceWarning) for warning in raised):
        return fitted, []
    return fitted, [
        f"The {MODELS[name].title} did not converge; use another --model, such as lightgbm, or leave out columns with "
        "--leave-out."
    ]

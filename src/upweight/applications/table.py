"""A default model for a data frame with a target column, and held-out rows as queries."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples

if TYPE_CHECKING:
    import pandas

HELD_OUT_SHARE = 0.2  # of the rows, which become queries
MAX_CLASSES = 20  # a whole-number target with more distinct values is a regression target
MAX_CATEGORY_SHARE = 0.5  # of distinct values; a column with more is not a category
MIN_TEXT_LENGTH = 20  # mean number of characters of free text

log = logging.getLogger("upweight")


@dataclass(frozen=True, eq=False)
class ColumnKinds:
    """The columns by how the default model reads them, and notes about the columns left out."""

    numbers: list[str]
    categories: list[str]
    texts: list[str]
    notes: list[str]


@dataclass(frozen=True, eq=False)
class FittedTable:
    """A default model on a table: the estimator, its training rows, and the held-out rows."""

    estimator: Any
    train: Examples
    held_out: Examples
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The class name of the last step."""
        return type(self.estimator[-1]).__name__


def with_ids(frame: pandas.DataFrame, target: str, identifier: str | None, name: str) -> pandas.DataFrame:
    """The frame indexed by the identifier column; without one, by its own index, or by row number from 0.

    Raises:
        KeyError: the target or identifier column does not exist. `name` is that of the file, for the message.
        ValueError: ids are missing or repeated.
    """
    from pandas.api import types

    for column in filter(None, (target, identifier)):
        if column not in frame.columns:
            raise KeyError(f"{name} has no column {column!r}; it has {', '.join(frame.columns[:20])}")
    if identifier is None:
        return frame
    ids = frame[identifier]
    if ids.isna().any() or ids.duplicated().any():
        raise ValueError(f"expected one id per row in column {identifier!r}, got ids that are missing or repeated")
    is_whole = types.is_integer_dtype(ids)
    return frame.drop(columns=identifier).set_index(ids.astype(int if is_whole else str).to_numpy())


def fit_table(frame: pandas.DataFrame, target: str, queries: Collection[str] = (), seed: int = 0) -> FittedTable:
    """Fit the default model on four fifths of the rows: logistic regression for classes, ridge regression otherwise.

    Rows whose id, as text, is among `queries` are always held out. Missing numbers are replaced by the median and
    numbers are scaled; categories are one-hot encoded; free text becomes TF-IDF features. A target with decimals, or
    with more than 20 distinct whole numbers, is a regression target; every other target is a class.

    Raises:
        ValueError: too few rows, one class only, or no usable column.
    """
    known = frame[frame[target].notna()]
    notes = []
    if len(known) < len(frame):
        notes.append(f"Rows left out because their {target} is missing: {len(frame) - len(known)}.")
    if len(known) < 10:
        raise ValueError(f"expected at least 10 rows with a {target}, got {len(known)}")
    y = _targets(known[target])
    columns = _column_kinds(known.drop(columns=target))
    notes += columns.notes
    if not (columns.numbers or columns.categories or columns.texts):
        raise ValueError(
            "no column is left to predict from, after the target and columns without information are left out"
        )
    is_regression = y.dtype.kind == "f"
    if not is_regression and len(np.unique(y)) < 2:
        raise ValueError(f"expected at least two classes in {target}, got only {y[0]!r}")
    x = _clean(known, columns)
    shown = x[columns.texts[0]].tolist() if columns.texts == list(x.columns) and x.shape[1] == 1 else None
    examples = Examples(x, y, ids=known.index.to_numpy(), shown=shown)
    requested = np.array([str(i) in queries for i in examples.ids.tolist()])
    is_held_out = _held_out(y, requested, seed, is_regression)
    train, held_out = examples.take(~is_held_out), examples.take(is_held_out)
    estimator = _default(columns, is_regression).fit(train.x, train.y)
    log.info("%s on %d rows: %s", type(estimator[-1]).__name__, len(train), columns)
    return FittedTable(estimator, train, held_out, tuple(notes))


def _targets(column: pandas.Series) -> NDArray[Any]:
    """Float for a regression target; int, bool or str for classes."""
    from pandas.api import types

    if types.is_bool_dtype(column):
        flags: NDArray[Any] = column.to_numpy(dtype=bool)
        return flags
    if not types.is_numeric_dtype(column):
        return np.array([str(value) for value in column])
    values: NDArray[Any] = column.to_numpy(dtype=np.float64)
    if len(np.unique(values)) > MAX_CLASSES or (values != np.rint(values)).any():
        return values
    return values.astype(np.int64)


def _column_kinds(frame: pandas.DataFrame) -> ColumnKinds:
    from pandas.api import types

    kinds = ColumnKinds([], [], [], [])
    for name in frame.columns:
        column = frame[name].dropna()
        distinct = column.astype(str).nunique()
        if distinct < 2:
            kinds.notes.append(f"Column {name} was left out: it is constant.")
        elif types.is_datetime64_any_dtype(column) or types.is_timedelta64_dtype(column):
            kinds.notes.append(f"Column {name} was left out: the default model does not read dates and times.")
        elif types.is_numeric_dtype(column) and not types.is_bool_dtype(column):
            kinds.numbers.append(name)
        elif distinct <= max(2, MAX_CATEGORY_SHARE * len(column)):
            kinds.categories.append(name)
        elif column.astype(str).str.len().mean() >= MIN_TEXT_LENGTH:
            kinds.texts.append(name)
        else:
            kinds.notes.append(
                f"Column {name} was left out: {distinct:,} short values, most of them unique, carry no information."
            )
    return kinds


def _clean(frame: pandas.DataFrame, columns: ColumnKinds) -> pandas.DataFrame:
    """Numbers as floats with NaN, everything else as strings, which every step of the default model can read."""
    numbers = {name: frame[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in columns.numbers}
    words = {
        name: frame[name].astype(object).where(frame[name].notna(), "missing" if name in columns.categories else "")
        for name in columns.categories + columns.texts
    }
    cleaned = {**numbers, **{name: values.astype(str).astype(object) for name, values in words.items()}}
    return type(frame)({name: cleaned[name] for name in frame.columns if name in cleaned}, index=frame.index)


def _held_out(y: NDArray[Any], requested: NDArray[np.bool_], seed: int, is_regression: bool) -> NDArray[np.bool_]:
    held = requested.copy()
    held[np.random.default_rng(seed).permutation(len(y))[: round(HELD_OUT_SHARE * len(y))]] = True
    if not is_regression:
        held &= np.isin(y, y[~held])  # a model cannot predict a class that it was not trained on
    return held


def _default(columns: ColumnKinds, is_regression: bool) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    steps: list[tuple[str, Any, Any]] = []
    if columns.numbers:
        steps.append(("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), columns.numbers))
    if columns.categories:
        steps.append(("categories", OneHotEncoder(handle_unknown="ignore"), columns.categories))
    steps += [(f"text {name}", TfidfVectorizer(sublinear_tf=True), name) for name in columns.texts]
    final = Ridge() if is_regression else LogisticRegression(tol=1e-6, max_iter=10_000)
    return make_pipeline(ColumnTransformer(steps), final)

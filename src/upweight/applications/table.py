"""table: a CSV or Parquet file and a target column become a fitted default model with held-out queries."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples

if TYPE_CHECKING:
    import pandas

READERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("read_csv", {"skipinitialspace": True}),
    ".parquet": ("read_parquet", {}),
    ".pq": ("read_parquet", {}),
}
HELD_OUT = 0.2  # share of the rows that are kept as queries
MOST_CLASSES = 20  # a whole-number target with more values than this is an amount
TEXT = 20  # characters on average from which a column whose values hardly repeat is text
OWN = 0.5  # share of distinct values from which they hardly repeat

log = logging.getLogger("upweight")


@dataclass(frozen=True, eq=False)
class Columns:
    """Which column is read how, and what was left out, in sentences."""

    numbers: list[str]
    categories: list[str]
    texts: list[str]
    notes: list[str]


@dataclass(frozen=True, eq=False)
class FittedTable:
    """A default model on a table: the estimator, what it was fitted on, and the rows it has not seen."""

    estimator: Any
    train: Examples
    held_out: Examples
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The last step, for people."""
        return type(self.estimator[-1]).__name__


def read_table(path: Path, target: str, identifier: str | None = None) -> pandas.DataFrame:
    """The file as a data frame, indexed by the identifier column (else by row number, from 0).

    Raises:
        ModuleNotFoundError: pandas (or pyarrow, for Parquet) is missing; the message names the extra.
        KeyError: there is no such target or identifier column.
        ValueError: the file is no table, or ids are missing or repeat.
    """
    try:
        import pandas as pd

        reader, options = READERS[path.suffix.lower()]
        if reader == "read_parquet":
            importlib.import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"reading {path.name} needs {error.name}; pip install 'upweight[tables]' brings it"
        ) from error
    try:
        frame = getattr(pd, reader)(path, **options)
    except (ValueError, OSError) as error:  # the parsers' own errors are ValueErrors, pyarrow's too
        raise ValueError(f"expected {path} to be a table, got: {error}") from error
    frame.columns = [str(name) for name in frame.columns]
    for name in filter(None, (target, identifier)):
        if name not in frame.columns:
            raise KeyError(f"{path.name} has no column {name!r}; it has {', '.join(frame.columns[:20])}")
    if identifier is None:
        return frame.reset_index(drop=True)
    ids = frame.pop(identifier)
    if ids.isna().any() or ids.duplicated().any():
        raise ValueError(f"expected one id per row in column {identifier!r}, got some that are missing or repeat")
    is_whole = pd.api.types.is_integer_dtype(ids)
    return frame.set_index(ids.astype(int if is_whole else str).to_numpy())


def fit_table(frame: pandas.DataFrame, target: str, asked: Collection[str] = (), seed: int = 0) -> FittedTable:
    """Fit the default model on four fifths of the rows: logistic regression for classes, ridge for amounts.

    Rows whose id is among `asked`, as text, are always held out. Numbers are filled with their median and scaled,
    categories one-hot encoded, free text turned into TF-IDF. A target with decimals, or with more than 20 distinct
    whole numbers, is an amount; every other target is a class.

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
    columns = _columns(known.drop(columns=target))
    notes += columns.notes
    if not (columns.numbers or columns.categories or columns.texts):
        raise ValueError("no column is left to predict from; the target and columns without information do not count")
    is_amount = y.dtype.kind == "f"
    if not is_amount and len(np.unique(y)) < 2:
        raise ValueError(f"expected at least two classes in {target}, got only {y[0]!r}")
    x = _clean(known, columns)
    shown = x[columns.texts[0]].tolist() if columns.texts == list(x.columns) and x.shape[1] == 1 else None
    whole = Examples(x, y, ids=known.index.to_numpy(), shown=shown)
    wanted = np.array([str(i) in asked for i in whole.ids.tolist()])
    held = _held_out(y, wanted, seed, is_amount)
    train, queries = whole.take(~held), whole.take(held)
    estimator = _default(columns, is_amount).fit(train.x, train.y)
    log.info("%s on %d rows: %s", type(estimator[-1]).__name__, len(train), columns)
    return FittedTable(estimator, train, queries, tuple(notes))


def _targets(column: pandas.Series) -> NDArray[Any]:
    """Float for amounts; int, bool or str for classes."""
    from pandas.api import types

    if types.is_bool_dtype(column):
        flags: NDArray[Any] = column.to_numpy(dtype=bool)
        return flags
    if not types.is_numeric_dtype(column):
        return np.array([str(value) for value in column])
    values: NDArray[Any] = column.to_numpy(dtype=np.float64)
    if len(np.unique(values)) > MOST_CLASSES or (values != np.rint(values)).any():
        return values
    return values.astype(np.int64)


def _columns(frame: pandas.DataFrame) -> Columns:
    from pandas.api import types

    found = Columns([], [], [], [])
    for name in frame.columns:
        column = frame[name].dropna()
        distinct = column.astype(str).nunique()
        if distinct < 2:
            found.notes.append(f"Column {name} was left out: it never varies.")
        elif types.is_datetime64_any_dtype(column) or types.is_timedelta64_dtype(column):
            found.notes.append(f"Column {name} was left out: the default model does not read times.")
        elif types.is_numeric_dtype(column) and not types.is_bool_dtype(column):
            found.numbers.append(name)
        elif distinct <= max(2, OWN * len(column)):
            found.categories.append(name)
        elif column.astype(str).str.len().mean() >= TEXT:
            found.texts.append(name)
        else:
            found.notes.append(
                f"Column {name} was left out: {distinct:,} short values that hardly repeat tell nothing."
            )
    return found


def _clean(frame: pandas.DataFrame, columns: Columns) -> pandas.DataFrame:
    """Numbers as floats with NaN, everything else as words: what every step of the default model can take."""
    numbers = {name: frame[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in columns.numbers}
    words = {
        name: frame[name].astype(object).where(frame[name].notna(), "missing" if name in columns.categories else "")
        for name in columns.categories + columns.texts
    }
    made = {**numbers, **{name: values.astype(str).astype(object) for name, values in words.items()}}
    return type(frame)({name: made[name] for name in frame.columns if name in made}, index=frame.index)


def _held_out(y: NDArray[Any], wanted: NDArray[np.bool_], seed: int, is_amount: bool) -> NDArray[np.bool_]:
    held = wanted.copy()
    held[np.random.default_rng(seed).permutation(len(y))[: round(HELD_OUT * len(y))]] = True
    if not is_amount:
        held &= np.isin(y, y[~held])  # a model has nothing to say of a class it was never shown
    return held


def _default(columns: Columns, is_amount: bool) -> Any:
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
    final = Ridge() if is_amount else LogisticRegression(tol=1e-6, max_iter=10_000)
    return make_pipeline(ColumnTransformer(steps), final)

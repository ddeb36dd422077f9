"""The target column of a table: classes or a number, or why it can be neither."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.cli.dates import are_dates
from upweight.cli.table_columns import plain_text
from upweight.cli.table_files.numbers import is_number

if TYPE_CHECKING:
    import pandas

TargetKind = Literal["classes", "number"]
MIN_ROWS = 10
MAX_CLASSES = 20  # a target of more different whole numbers is a number
MAX_CLASS_SHARE = 0.5  # of different values in the rows; classes repeat
CLASSES_LISTED = 4
NUMBER = re.compile(r"[^\d\s]{0,3}\s*[-+]?\d[\d.,' ]*\s*[^\d\s]{0,4}")


@dataclass(frozen=True, eq=False)
class Target:
    """What a model predicts: a value for every row, int, bool or str for classes and float for a number."""

    name: str
    y: NDArray[Any]
    kind: TargetKind

    @property
    def description(self) -> str:
        """The kind of the target and the reason, in a few words."""
        values = np.unique(self.y)
        if self.kind == "number":
            return f"{self.name}, a number with {len(values):,} different values in {len(self.y):,} rows"
        listed = ", ".join(plain_text(value) for value in values[:CLASSES_LISTED])
        more = f" and {len(values) - CLASSES_LISTED:,} more" if len(values) > CLASSES_LISTED else ""
        whole = "; --target-is number reads it as a number" if self.y.dtype.kind == "i" and len(values) > 2 else ""
        return f"{self.name}, {len(values):,} classes ({listed}{more}{whole})"


def read_target(name: str, values: pandas.Series, kind: TargetKind | None = None) -> Target:
    """The target of the rows that have one.

    Texts and truth values are classes. Numbers are classes if they are whole and have at most 20 different values, each
    of which is in two rows on average; else the target is a number. `kind` decides otherwise.

    Raises:
        ValueError: too few rows, dates, infinite numbers, a single class, or texts that hardly repeat.
    """
    from pandas.api import types

    if len(values) < MIN_ROWS:
        raise ValueError(f"expected at least {MIN_ROWS} rows with a {name}, got {len(values)}")
    if are_dates(values):
        raise ValueError(
            f"expected a target of classes or numbers, got dates in column {name}, for example "
            f"{plain_text(values.iloc[0])}; choose another --target, or make a number or a class of the dates first"
        )
    if types.is_bool_dtype(values):
        return _of_classes(name, values.to_numpy(dtype=bool))
    if not types.is_numeric_dtype(values):
        return _of_texts(name, np.array([str(value) for value in values]), kind)
    numbers = values.to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).all():
        rows = [plain_text(row) for row in values.index[~np.isfinite(numbers)][:3]]
        raise ValueError(
            f"expected finite numbers in the target {name}, got infinite ones in {int((~np.isfinite(numbers)).sum())} "
            f"rows, for example {', '.join(rows)}; leave these rows out or mend them"
        )
    distinct, is_whole = len(np.unique(numbers)), bool((numbers == np.rint(numbers)).all())
    if kind is None:
        kind = "classes" if is_whole and distinct <= min(MAX_CLASSES, MAX_CLASS_SHARE * len(numbers)) else "number"
    if kind == "classes":
        return _of_classes(name, numbers.astype(np.int64) if is_whole else values.astype(str).to_numpy(dtype=str))
    if distinct < 2:
        raise ValueError(
            f"expected a target that varies, got {plain_text(numbers[0])} in all {len(numbers):,} rows; "
            "name another column"
        )
    return Target(name, numbers, "number")


def _of_texts(name: str, texts: NDArray[np.str_], kind: TargetKind | None) -> Target:
    if kind == "number":
        example = next((text for text in texts.tolist() if not is_number(text)), texts[0])
        raise ValueError(f"expected numbers in the target {name}, got texts, for example {example!s}")
    return _of_classes(name, texts)


def _of_classes(name: str, y: NDArray[Any]) -> Target:
    """Raises ValueError unless there are two classes that repeat."""
    values = np.unique(y)
    if len(values) < 2:
        raise ValueError(f"expected at least two classes in {name}, got only {plain_text(y[0])} in all {len(y):,} rows")
    if len(values) > MAX_CLASS_SHARE * len(y):
        numbers = (
            "; if these are numbers, --decimal and --thousands say how they are written" if _are_numbers(y) else ""
        )
        raise ValueError(
            f"expected a target whose classes repeat, got {len(values):,} different values in the {len(y):,} rows of "
            f"column {name}, for example {plain_text(y[0])}; choose another column with --target{numbers}"
        )
    return Target(name, y, "classes")


def _are_numbers(y: NDArray[Any]) -> bool:
    """Whether texts look like numbers that were not read as such: 1.234,5 or 12 kg."""
    return y.dtype.kind == "U" and all(NUMBER.fullmatch(text) for text in y.tolist())

"""Whole numbers that name rows, patients or categories instead of measuring something."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas

IdKind = Literal["rows", "repeated", "codes"]

# Words that say by themselves that a number is an id, and words that say so only of values that hardly repeat.
ID_WORDS = {"id", "ids", "uid", "uuid", "guid", "pk", "nbr", "ssn", "mrn", "isbn", "ean"}
WEAK_ID_WORDS = {
    *(
        "no",
        "nr",
        "num",
        "number",
        "nummer",
        "numero",
        "key",
        "index",
        "idx",
        "code",
        "row",
        "record",
        "case",
        "serial",
    ),
    *("seq", "sequence", "order", "invoice", "account", "phone", "unnamed"),
}
JOINED_ID = re.compile(
    r"(user|item|movie|film|product|customer|client|patient|subject|person|member|student|employee|passenger|visit|"
    r"encounter|case|sample|record|row|order|invoice|account|session|device|store|shop|station|sensor|object|image)_?ids?"
)
TIME_WORDS = {
    *("year", "years", "yr", "month", "months", "week", "day", "days", "hour", "minute", "second", "seconds", "date"),
    *("time", "timestamp", "t", "step", "epoch", "age"),
}
HARDLY_REPEATED = 0.95  # distinct values per row, at least
CODE_REPEATS = 10  # rows per distinct value, at least, of ids that are read as categories
MIN_ROWS = 20  # for a judgement by values alone
MIN_DIGITS = 6  # of ids that are recognised by all having the same number of digits
MAX_ROUND_SHARE = 0.3  # of ids that end in 0; a tenth of them do, and most rounded measurements


def id_kind(name: str, values: pandas.Series, rows: int) -> IdKind | None:
    """What the whole numbers of a column identify, of `rows` rows of which some may be missing; None for a measurement.

    "rows": (nearly) every row has a number of its own. "repeated": one number names several rows, such as the visits of
    a patient. "codes": few numbers that each name many rows, such as departments.
    """
    numbers = _whole_numbers(values, with_missing=len(values) < rows)
    if numbers is None:
        return None
    distinct, n = len(np.unique(numbers)), len(numbers)
    words = _words(name)
    is_named = bool(ID_WORDS.intersection(words[:1] + words[-1:]) or JOINED_ID.fullmatch("".join(words)))
    if distinct >= HARDLY_REPEATED * n:
        is_weakly_named = bool(words and (words[-1] in WEAK_ID_WORDS or words[0] == "unnamed"))
        is_time = bool(TIME_WORDS.intersection(words))
        by_values = distinct == n >= MIN_ROWS and not is_time and n == rows and _counts_or_names(numbers)
        return "rows" if is_named or (is_weakly_named and n >= MIN_ROWS) or by_values else None
    if not is_named:
        return None
    return "codes" if n >= CODE_REPEATS * distinct else "repeated"


def _whole_numbers(values: pandas.Series, with_missing: bool) -> NDArray[np.int64] | None:
    """The values as integers; None for values that have decimals.

    Whole numbers beside missing values are held as floats, so that nobody can say how they were written.
    """
    from pandas.api import types

    if types.is_integer_dtype(values):
        return np.asarray(values.to_numpy()).astype(np.int64)
    numbers = values.to_numpy(dtype=np.float64)
    is_whole = with_missing and bool(((numbers == np.rint(numbers)) & (np.abs(numbers) < 2**53)).all())
    return numbers.astype(np.int64) if is_whole else None


def _words(name: str) -> list[str]:
    """The words of a column's name in lower case: `patient_nbr`, `PassengerId` and `Patient No.` have two."""
    spaced = re.sub(r"([a-z])([A-Z])|([A-Z])([A-Z][a-z])", r"\1\3 \2\4", name)
    return re.findall(r"[^\W\d_]+", spaced.lower())


def _counts_or_names(values: NDArray[np.int64]) -> bool:
    """Whether numbers that are all different are evenly spaced, rise from row to row, or have all the same digits."""
    ordered = np.sort(values)
    steps = np.diff(ordered)
    if (steps == steps[0]).all() or (np.diff(values) > 0).all():
        return True
    is_long = ordered[0] >= 10 ** (MIN_DIGITS - 1) and len(str(ordered[0])) == len(str(ordered[-1]))
    return bool(is_long and (values % 10 == 0).mean() <= MAX_ROUND_SHARE)

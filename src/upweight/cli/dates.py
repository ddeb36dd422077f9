"""Which columns of a table are dates, times or durations, however they are held."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas

YEAR, MONTH, DAY = r"(1[5-9]|20|21)\d\d", r"(0?[1-9]|1[0-2])", r"(0?[1-9]|[12]\d|3[01])"
NAME = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
CLOCK = r"([T ]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AP]M)?( ?(Z|UTC|[+-]\d{2}:?\d{2}))?)?"
DATE = re.compile(
    rf"({YEAR}(?P<a>[-/.]){MONTH}((?P=a){DAY})?|{DAY}(?P<b>[-/.]){MONTH}(?P=b)(\d\d)?\d\d|{MONTH}/{DAY}/(\d\d)?\d\d"
    rf"|{DAY}[- .]+{NAME}[- ]{YEAR}|{NAME} {DAY},? {YEAR}){CLOCK}",
    re.IGNORECASE,
)
PYTHON_DATES = (datetime.date, datetime.time, datetime.timedelta)


def are_dates(column: pandas.Series) -> bool:
    """Whether the values, none of which is missing, are dates, times or durations; also as text, or as 20240131."""
    from pandas.api import types

    if types.is_datetime64_any_dtype(column) or types.is_timedelta64_dtype(column):
        return True
    if not len(column) or types.is_bool_dtype(column):
        return False
    if types.is_numeric_dtype(column):
        return types.is_integer_dtype(column) and _are_written_in_digits(column)
    if isinstance(column.iloc[0], PYTHON_DATES) or str(column.dtype).startswith("period"):
        return True
    return all(isinstance(value, str) and DATE.fullmatch(value.strip()) for value in column.unique())


def _are_written_in_digits(column: pandas.Series) -> bool:
    """Whether whole numbers are all dates written as year, month and day in eight digits."""
    values = column.to_numpy(dtype=np.int64)
    years, months, days = values // 10_000, values // 100 % 100, values % 100
    is_date = (years >= 1800) & (years < 2200) & (months >= 1) & (months <= 12) & (days >= 1) & (days <= 31)
    return bool(is_date.all())

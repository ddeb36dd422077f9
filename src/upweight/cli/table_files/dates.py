"""Texts → dates, if all of them are written in one way that has one meaning."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

ISO = re.compile(r"\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?\s?(Z|[+-]\d{2}:?\d{2})?)?\s*")
TIME = r"(?:[T ,]+(\d{1,2}:\d{2}(:\d{2})?))?"
DAY_AND_MONTH = re.compile(rf"\s*(\d{{1,2}})([./-])(\d{{1,2}})\2(\d{{4}}|\d{{2}}){TIME}\s*")
YEAR_FIRST = re.compile(rf"\s*\d{{4}}[/.]\d{{1,2}}[/.]\d{{1,2}}{TIME}\s*")
ZONE = re.compile(r"\d(Z|[+-]\d{2}:?\d{2})$")
NAMED_MONTH = re.compile(r"\s*(\d{1,2}[- ][A-Za-z]{3,9}[- ]\d{2,4}|[A-Za-z]{3,9} \d{1,2},? \d{4})\s*")
NAMED_FORMATS = ("%d-%b-%Y", "%d %b %Y", "%d-%B-%Y", "%d %B %Y", "%d-%b-%y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y")


def is_date(text: str) -> bool:
    """Whether the text is written as a date."""
    return any(pattern.fullmatch(text) for pattern in (ISO, YEAR_FIRST, DAY_AND_MONTH, NAMED_MONTH))


def find_dates(name: str, texts: Sequence[str], values: Collection[str]) -> tuple[pandas.Series | None, list[str]]:
    """(dates, []); (None, a sentence) if the dates have two meanings; (None, []) if `values` are not dates.

    The dates are one for each of `texts`, missing for those that are not among `values`.
    """
    column, notes = None, list[str]()
    if not values:
        return None, notes
    if all(map(ISO.fullmatch, values)):
        column = _parsed(texts, values, "ISO8601")
    elif all(map(YEAR_FIRST.fullmatch, values)):
        column = _parsed(texts, values, "mixed")
    elif all(map(NAMED_MONTH.fullmatch, values)):
        dates = (_parsed(texts, values, each) for each in NAMED_FORMATS)
        column = next((each for each in dates if each is not None), None)
    elif all(map(DAY_AND_MONTH.fullmatch, values)):
        day_first = _is_day_first(values)
        if day_first is None:
            example = min(values).strip()
            notes.append(
                f"Column {name} was read as text: in dates such as {example!r} the day or the month may come first; "
                "write them as 2020-12-31."
            )
        else:
            column = _parsed(texts, values, "mixed", day_first)
    return column, notes


def _is_day_first(values: Collection[str]) -> bool | None:
    """Whether the day comes before the month, by a number above 12 or by dots between them; None if it is unclear."""
    parts = [DAY_AND_MONTH.fullmatch(value) for value in values]
    day_first = any(int(match[1]) > 12 for match in parts if match)
    month_first = any(int(match[3]) > 12 for match in parts if match)
    if day_first == month_first:
        return True if not day_first and all(match[2] == "." for match in parts if match) else None
    return day_first


def _parsed(texts: Sequence[str], values: Collection[str], form: str, day_first: bool = False) -> pandas.Series | None:
    """The texts as dates, missing where they are not among `values`; None if a date does not exist. With zones: UTC."""
    import pandas as pd

    dated = set(values)
    column = pd.Series([text.strip() if text in dated else None for text in texts], dtype=object)
    has_zones = form == "ISO8601" and any(ZONE.search(text.strip()) for text in values)
    try:
        return pd.to_datetime(column, format=form, dayfirst=day_first, utc=has_zones)
    except (ValueError, OverflowError):
        return None

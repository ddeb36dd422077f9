"""Numbers that are written with signs of thousands, a unit or a currency, if all of a column are and mean one thing."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

THOUSANDS_MARKS = (",", ".", "'", "’", " ", "\u00a0", "\u202f")
ONLY_OF_THOUSANDS = frozenset(THOUSANDS_MARKS) - {",", "."}  # no decimal mark is one of these
MARK_NAMES = {" ": "spaces", "\u00a0": "spaces", "\u202f": "spaces", ".": "points", ",": "commas"}
CURRENCIES = r"[$€£¥₹₩₽]|US\$|C\$|A\$|R\$|USD|EUR|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|CZK|CAD|AUD|BRL"
UNITS = (
    r"%|‰|°|°C|°F|K|kg|g|mg|µg|t|lbs?|oz|km|m|cm|mm|µm|nm|mi|miles?|ft|in|yd|m²|km²|ha|m2|m³|l|L|ml|mL|h|hrs?|min|s|sec|"
    r"ms|days?|years?|yrs?|kB|KB|MB|GB|TB|W|kW|kWh|V|mV|A|mA|Hz|kHz|MHz|GHz|bar|Pa|kPa|hPa|J|kJ|kcal|km/h|mph|m/s|bpm"
)
NUMBER = r"[+\-−]?[\d.](?:[\d.,'’ \u00a0\u202f]*\d)?"
AFFIXED = re.compile(
    rf"\s*(?P<sign>[+\-−]?)\s*(?P<currency>{CURRENCIES})?\s*(?P<number>{NUMBER})\s*(?P<unit>{CURRENCIES}|{UNITS})?\s*"
)
# One to three digits, the mark, and three digits: 1,234 may be a thousand. 0,234 may not.
MAYBE_THOUSAND = re.compile(r"\s*[+-]?[1-9]\d{0,2}[.,]\d{3}\s*", re.ASCII)
MAX_DIGITS = 15  # of a number with signs of thousands


class NumberNotation(NamedTuple):
    """How all numbers of a column are written.

    Attributes:
        numbers: text → the same number with a decimal point, and without anything else.
        thousands: the mark between groups of three digits; None if there are none.
        decimal: the decimal mark that occurs; None if no number has decimals.
        example: a text with that decimal mark, or any.
        affixes: currency and unit.
    """

    numbers: dict[str, str]
    thousands: str | None
    decimal: str | None
    example: str
    affixes: tuple[str, ...]

    @property
    def has_certain_decimals(self) -> bool:
        """Whether the decimal mark can be no mark of thousands."""
        decimals = [number for number in self.numbers.values() if "." in number]
        return self.thousands is not None or not all(map(MAYBE_THOUSAND.fullmatch, decimals))

    def sentence(self, name: str) -> str:
        """Describe what was read as a part of the notation, for a note."""
        parts = [repr(affix) for affix in self.affixes]
        if self.thousands is not None:
            parts.append(f"{MARK_NAMES.get(self.thousands, self.thousands)} between thousands")
        return f"Column {name} was read as numbers without {' and '.join(parts)}, such as '{self.example.strip()}'."


def find_notation(texts: Collection[str], decimal: str, thousands: str | None) -> NumberNotation | None:
    """Find the notation in which all these texts are numbers; None if there is none, or more than one.

    A mark stands between thousands only if it cannot be a decimal mark: there are two of it in a number, or another
    mark is that of decimals, or it is no such mark at all. `1.234` alone is never read as a thousand.

    Args:
        texts: the distinct texts that are not missing.
        decimal: the decimal mark of the file.
        thousands: the mark of thousands that the user names; None for none.
    """
    first = next(iter(texts), None)
    if first is None or AFFIXED.fullmatch(_with_sign(first)) is None:
        return None
    matches = [AFFIXED.fullmatch(_with_sign(text)) for text in texts]
    matched = [match for match in matches if match is not None]
    affixes = {(match["currency"], match["unit"]) for match in matched}
    if len(matched) < len(texts) or len(affixes) != 1:
        return None
    signed = [(match["sign"] + match["number"]).replace("−", "-") for match in matched]
    named = tuple(filter(None, affixes.pop()))
    in_parentheses = sum(text.strip().startswith("(") for text in texts)
    if 0 < in_parentheses < len(texts):
        named += ("()",)  # around negative numbers
    elif in_parentheses:
        return None
    marks = [thousands] if thousands is not None else THOUSANDS_MARKS
    readings: list[tuple[str | None, str]] = [(None, decimal)] if named else []
    readings += [(mark, decimal) for mark in marks if mark != decimal]
    if thousands is None:
        readings.append((decimal, {".": ",", ",": "."}[decimal]))  # 1.234.567, of which decimals say nothing
    for mark, point in readings:
        if _is_written(signed, mark, point, is_named=thousands is not None, may_have_decimals=point == decimal):
            numbers = {text: _plain(number, mark, point) for text, number in zip(texts, signed, strict=True)}
            occurs = next((text for text, number in zip(texts, signed, strict=True) if point in number), None)
            return NumberNotation(numbers, mark, point if occurs else None, occurs or first, named)
    return None


def _with_sign(text: str) -> str:
    """Write a negative number in parentheses, as accountants have it, with a sign."""
    stripped = text.strip()
    return f"-{stripped[1:-1]}" if stripped.startswith("(") and stripped.endswith(")") else text


def _is_written(numbers: list[str], mark: str | None, point: str, is_named: bool, may_have_decimals: bool) -> bool:
    """Whether all numbers have this mark between thousands and this decimal mark, and the former is certain."""
    decimals = rf"({re.escape(point)}\d+)?"
    if mark is None:
        return all(re.fullmatch(rf"[+-]?\d+{decimals}", number, re.ASCII) for number in numbers)
    grouped = re.compile(rf"[+-]?([1-9]\d{{0,2}}({re.escape(mark)}\d{{3}})+|\d+){decimals}", re.ASCII)
    has_decimals = any(point in number for number in numbers)
    if (has_decimals and not may_have_decimals) or not all(map(grouped.fullmatch, numbers)):
        return False
    is_certain = is_named or mark in ONLY_OF_THOUSANDS
    is_certain = is_certain or any(number.count(mark) > 1 or (mark in number and point in number) for number in numbers)
    has_room = max(sum(map(str.isdigit, number)) for number in numbers) <= MAX_DIGITS
    return is_certain and has_room and any(mark in number for number in numbers)


def _plain(number: str, mark: str | None, point: str) -> str:
    return (number if mark is None else number.replace(mark, "")).replace(point, ".")


def decimal_of(columns: Iterable[Collection[str]], thousands: str | None) -> dict[str, str]:
    """Decimal mark → an example, of columns with units or signs of thousands whose numbers settle it."""
    examples: dict[str, str] = {}
    for texts in columns:
        for point in (".", ","):
            notation = find_notation(texts, point, thousands)
            if notation is not None and notation.decimal == point and notation.has_certain_decimals:
                examples.setdefault(point, notation.example)
    return examples

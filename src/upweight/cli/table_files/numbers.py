"""Which texts are numbers, and which words in a column of numbers mean that one is missing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from upweight.cli.table_files.number_notation import MAYBE_THOUSAND, decimal_of

POINT_NUMBER = re.compile(
    r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*|\s*[+-]?(inf|infinity)\s*", re.IGNORECASE | re.ASCII
)
COMMA_NUMBER = re.compile(
    r"\s*[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?\s*|\s*[+-]?(inf|infinity)\s*", re.IGNORECASE | re.ASCII
)
WHOLE_NUMBER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
LEADING_ZERO = re.compile(r"\s*[+-]?0\d+\s*", re.ASCII)
NOT_AVAILABLE = {"", "NA", "N/A", "n/a", "na", "#N/A", "#NA", "<NA>", "?", "-", "."}
NOT_A_NUMBER = {"NaN", "nan", "NAN", "-nan", "-NaN", "NaT", "null", "NULL", "Null", "None", "NONE", "none"}
OF_PROGRAMS = {"\\N", "(null)", "n.a.", "N.A.", "--", "#DIV/0!", "#VALUE!", "#REF!", "#NUM!", "#NAME?", "#NULL!"}
MISSING_WORDS = frozenset(NOT_AVAILABLE | NOT_A_NUMBER | OF_PROGRAMS)


def is_number(text: str) -> bool:
    """Whether the text is a number, with either decimal mark."""
    return bool(POINT_NUMBER.fullmatch(text) or COMMA_NUMBER.fullmatch(text))


def find_decimal(columns: Sequence[Sequence[str]], separator: str, name: str, thousands: str | None = None) -> str:
    """The decimal mark of the numbers in these columns, each given by its distinct texts.

    A mark before exactly three digits may stand for a thousand, and decides nothing.

    Raises:
        ValueError: both marks occur, or only a comma that may stand for a thousand, in a file that commas do not
            separate; the message names `--decimal`.
    """
    if thousands in (".", ","):
        return {".": ",", ",": "."}[thousands]
    present = [[text for text in distinct if text.strip() not in MISSING_WORDS] for distinct in columns]
    others = [v for v in present if not any(all(map(each.fullmatch, v)) for each in (POINT_NUMBER, COMMA_NUMBER))]
    examples = decimal_of(others, thousands)
    unclear = None
    for values in present:
        for mark, pattern in ((".", POINT_NUMBER), (",", COMMA_NUMBER)):
            marked = [text for text in values if mark in text]
            if marked and all(map(pattern.fullmatch, values)):
                certain = next((text for text in marked if not MAYBE_THOUSAND.fullmatch(text)), None)
                if certain is not None:
                    examples.setdefault(mark, certain)
                elif mark == ",":
                    unclear = marked[0]
    if len(examples) == 2:
        raise ValueError(
            f"{name} has numbers such as {examples['.']!r} and such as {examples[',']!r}; say which mark is that of "
            "decimals with --decimal"
        )
    if unclear is not None and not examples and separator != ",":
        raise ValueError(
            f"{name} has numbers such as {unclear!r}, whose comma may be a decimal comma or stand for thousands; say "
            "--decimal , for decimals or --thousands ,"
        )
    return next(iter(examples), ".")

"""The texts of a column → numbers, truth values, dates or texts, with a sentence about what was decided."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from upweight.cli.table_files.dates import find_dates
from upweight.cli.table_files.numbers import (
    COMMA_NUMBER,
    LEADING_ZERO,
    MISSING_WORDS,
    POINT_NUMBER,
    WHOLE_NUMBER,
)

if TYPE_CHECKING:
    import pandas

TRUTH_VALUES = ({"True", "False"}, {"TRUE", "FALSE"}, {"true", "false"})
MAX_WHOLE = 2**63 - 1
SHOWN_CHARACTERS = 40  # of a cell in a note
WORDS_SHOWN = 3
MAX_OTHERS_SHARE = 0.5  # of cells that are not numbers; below it, one would take the column for numbers
# Digits with signs of thousands, currencies or units around: people read them as numbers.
LIKE_A_NUMBER = re.compile(r"[^\w]*\d[\d.,'’\s]*[^\w]*")


def column_of(name: str, cells: Sequence[str], decimal: str, is_target: bool) -> tuple[pandas.Series, list[str]]:
    """(column, notes). Empty cells are missing; NA, null, … only in a column of numbers or dates that is no target.

    Args:
        name: of the column, for the notes.
        cells: the texts, one per row.
        decimal: the decimal mark, "." or ",".
        is_target: whether the column is to be predicted: every spelling in it is a class of its own.
    """
    import pandas as pd

    counts = Counter(cells)
    blank = {text for text in counts if not text.strip()}
    texts = counts.keys() - blank
    words = {text for text in texts if text.strip() in MISSING_WORDS}
    if not texts:
        return pd.Series([float("nan")] * len(cells)), []
    values = texts - words if not is_target else texts
    numbers = COMMA_NUMBER if decimal == "," else POINT_NUMBER
    missing = blank | (words if values else set())
    if values and all(map(numbers.fullmatch, values)):
        column, reason = _numbers(cells, values, missing, decimal)
        if column is not None:
            return column, _missing_note(name, counts, words - values)
        return _texts(cells, blank), [f"Column {name} was read as text: {reason}."]
    if texts in TRUTH_VALUES or (len(texts) == 1 and any(texts < both for both in TRUTH_VALUES)):
        truths = {text: None if text in blank else text.lower() == "true" for text in counts}
        return pd.Series([truths[cell] for cell in cells], dtype="boolean" if blank else "bool"), []
    dates, note = find_dates(name, cells, values, missing)
    if dates is not None:
        return dates, _missing_note(name, counts, words - values)
    return _texts(cells, blank), note or _text_note(name, counts, blank, numbers)


def _texts(cells: Sequence[str], blank: Collection[str]) -> pandas.Series:
    import pandas as pd

    return pd.Series([None if cell in blank else cell for cell in cells])


def _numbers(
    cells: Sequence[str], values: Collection[str], missing: Collection[str], decimal: str
) -> tuple[pandas.Series | None, str]:
    """(the column, ""), or (None, why the digits are a text)."""
    import pandas as pd

    if all(map(WHOLE_NUMBER.fullmatch, values)):
        code = next((text for text in values if LEADING_ZERO.fullmatch(text)), None)
        if code is not None:
            return None, f"{code.strip()!r} begins with a zero, as codes do"
        parsed = {text: int(text) for text in values}
        longest = max(parsed.values(), key=abs)
        if abs(longest) > MAX_WHOLE:
            return None, f"{longest} has more digits than a number can hold"
        whole = [None if cell in missing else parsed[cell] for cell in cells]
        return pd.Series(whole, dtype="int64" if None not in whole else "Int64"), ""
    floats = {text: float(text.replace(decimal, ".")) for text in values}
    return pd.Series([floats.get(cell, float("nan")) for cell in cells], dtype="float64"), ""


def _missing_note(name: str, counts: Counter[str], words: Collection[str]) -> list[str]:
    if not words:
        return []
    listed = ", ".join(f"{word.strip()} ({counts[word]:,})" for word in sorted(words)[:WORDS_SHOWN])
    return [f"Cells of column {name} that were read as missing, because all others are numbers or dates: {listed}."]


def _text_note(name: str, counts: Counter[str], blank: Collection[str], numbers: re.Pattern[str]) -> list[str]:
    """A sentence about a text column that one would take for numbers, or whose texts differ by spaces alone."""
    texts = [text for text in counts if text not in blank]
    others = [text for text in texts if not numbers.fullmatch(text)]
    if all(map(LIKE_A_NUMBER.fullmatch, others)):
        example = others[0].strip()[:SHOWN_CHARACTERS]
        return [
            f"Column {name} was read as text: {example!r} is not a number. Thousands have no separators, and --decimal "
            "names the decimal mark."
        ]
    if sum(counts[text] for text in others) <= MAX_OTHERS_SHARE * sum(counts[text] for text in texts):
        example = next((text for text in others if text.strip() not in MISSING_WORDS), others[0])
        return [f"Column {name} was read as text: {example.strip()[:SHOWN_CHARACTERS]!r} is not a number."]
    times = Counter(text.strip() for text in texts)
    repeated = next((text for text in times if times[text] > 1), None)
    if repeated is None:
        return []
    return [
        f"Column {name} has {repeated[:SHOWN_CHARACTERS]!r} with and without spaces around it, as different values."
    ]

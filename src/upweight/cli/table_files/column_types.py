"""The texts of a column → numbers, truth values, dates or texts, with a sentence about what was decided."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from upweight.cli.table_files.dates import find_dates
from upweight.cli.table_files.numbers import (
    COMMA_NUMBER,
    LEADING_ZERO,
    MISSING_WORDS,
    POINT_NUMBER,
    WHOLE_NUMBER,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from numpy.typing import NDArray

TRUTH_VALUES = ({"True", "False"}, {"TRUE", "FALSE"}, {"true", "false"})
MAX_WHOLE = 2**63 - 1
MAX_OTHERS_SHARE = 0.5  # of cells that are not numbers; below it, one would take the column for numbers
SHOWN_CHARACTERS = 40  # of a cell in a note
WORDS_SHOWN = 3
# Digits with signs of thousands, currencies or units around: people read them as numbers.
LIKE_A_NUMBER = re.compile(r"[^\w]*\d[\d.,'’\s]*[^\w]*")


class Cells(NamedTuple):
    """The texts of a column: the distinct ones, and for every row the position of its own among them."""

    texts: list[str]
    codes: NDArray[np.intp]

    @classmethod
    def of(cls, column: Sequence[str]) -> Cells:
        """Read a column of one text per row."""
        import numpy as np
        import pandas as pd

        values = np.empty(len(column), dtype=object)
        values[:] = column
        codes, texts = pd.factorize(values)
        return cls(texts.tolist(), codes)

    def spread(self, values: pandas.Series) -> pandas.Series:
        """A column of these values, one for each of the distinct texts."""
        return values.take(self.codes).reset_index(drop=True)

    def counts(self) -> dict[str, int]:
        """How often each text occurs."""
        import numpy as np

        return dict(zip(self.texts, np.bincount(self.codes, minlength=len(self.texts)).tolist(), strict=True))


def column_of(name: str, cells: Cells, decimal: str, is_target: bool) -> tuple[pandas.Series, list[str]]:
    """(column, notes). Empty cells are missing; NA, null, … only in a column of numbers or dates that is not a target.

    Args:
        name: of the column, for the notes.
        cells: the texts.
        decimal: the decimal mark, "." or ",".
        is_target: whether the column is to be predicted: every spelling in it is a class of its own.
    """
    import pandas as pd

    texts = [text for text in cells.texts if text.strip()]
    values = texts if is_target else [text for text in texts if text.strip() not in MISSING_WORDS]
    numbers = COMMA_NUMBER if decimal == "," else POINT_NUMBER
    if not texts:
        return pd.Series([float("nan")] * len(cells.codes)), []
    if values and all(map(numbers.fullmatch, values)):
        reason = _why_codes(values)
        if reason:
            return _texts(cells), [f"Column {name} was read as text: {reason}."]
        parsed = cells.spread(_parsed(cells.texts, set(values), decimal))
        return parsed, _missing_note(name, cells, set(texts) - set(values))
    if any(both.issuperset(texts) for both in TRUTH_VALUES):
        truths = [text.strip().lower() == "true" if text.strip() else None for text in cells.texts]
        return cells.spread(pd.Series(truths, dtype="boolean" if None in truths else "bool")), []
    dates, note = find_dates(name, cells.texts, values)
    if dates is not None:
        return cells.spread(dates), _missing_note(name, cells, set(texts) - set(values))
    if is_target and not note and (words := sorted({text.strip() for text in texts} & MISSING_WORDS)):
        rest = [text for text in texts if text.strip() not in MISSING_WORDS]
        if rest and all(map(numbers.fullmatch, rest)):
            note = [
                f"Column {name} was read as text, with {words[0]!r} as a value: its cells are missing only if empty."
            ]
    return _texts(cells), note or _text_note(name, cells, numbers)


def _texts(cells: Cells) -> pandas.Series:
    import pandas as pd

    return cells.spread(pd.Series([text if text.strip() else None for text in cells.texts]))


def _why_codes(numbers: Sequence[str]) -> str | None:
    """Why these whole numbers are a text; None if they are numbers."""
    if not all(map(WHOLE_NUMBER.fullmatch, numbers)):
        return None
    code = next((text for text in numbers if LEADING_ZERO.fullmatch(text)), None)
    if code is not None:
        return f"{code.strip()!r} begins with a zero, as codes do"
    longest = max(numbers, key=lambda text: abs(int(text)))
    return f"{longest} has more digits than a number can hold" if abs(int(longest)) > MAX_WHOLE else None


def _parsed(texts: Sequence[str], numbers: set[str], decimal: str) -> pandas.Series:
    """The texts as numbers; missing where they are not among `numbers`."""
    import pandas as pd

    if all(map(WHOLE_NUMBER.fullmatch, numbers)):
        whole = [int(text) if text in numbers else None for text in texts]
        return pd.Series(whole, dtype="int64" if None not in whole else "Int64")
    floats = [float(text.replace(decimal, ".")) if text in numbers else float("nan") for text in texts]
    return pd.Series(floats, dtype="float64")


def _missing_note(name: str, cells: Cells, words: set[str]) -> list[str]:
    if not words:
        return []
    counts = cells.counts()
    listed = ", ".join(f"{word.strip()} ({counts[word]:,})" for word in sorted(words)[:WORDS_SHOWN])
    return [f"Cells of column {name} that were read as missing, because all others are numbers or dates: {listed}."]


def _text_note(name: str, cells: Cells, numbers: re.Pattern[str]) -> list[str]:
    """A sentence about a text column that one would take for numbers, or whose texts differ by spaces alone."""
    counts: dict[str, Any] = {text: count for text, count in cells.counts().items() if text.strip()}
    others = [text for text in counts if not numbers.fullmatch(text)]
    if all(map(LIKE_A_NUMBER.fullmatch, others)):
        example = others[0].strip()[:SHOWN_CHARACTERS]
        return [
            f"Column {name} was read as text: {example!r} is not a number. Thousands have no separators, and --decimal "
            "names the decimal mark."
        ]
    if sum(counts[text] for text in others) <= MAX_OTHERS_SHARE * sum(counts.values()):
        example = next((text for text in others if text.strip() not in MISSING_WORDS), others[0])
        return [f"Column {name} was read as text: {example.strip()[:SHOWN_CHARACTERS]!r} is not a number."]
    times = Counter(text.strip() for text in counts)
    repeated = next((text for text in times if times[text] > 1), None)
    if repeated is None:
        return []
    return [
        f"Column {name} has {repeated[:SHOWN_CHARACTERS]!r} with and without spaces around it, as different values."
    ]

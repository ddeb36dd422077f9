"""The texts of a column → numbers, truth values, dates or texts, with a sentence about what was decided."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from upweight.cli.table_files.cells import Cells
from upweight.cli.table_files.dates import find_dates, is_date
from upweight.cli.table_files.number_notation import AFFIXED, find_notation
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

MAX_CLASSES = 20  # different texts of a target; more numbers with units are no classes
TRUTH_VALUES = ({"True", "False"}, {"TRUE", "FALSE"}, {"true", "false"})
MAX_WHOLE = 2**63 - 1
MAX_OTHERS_SHARE = 0.5  # of cells that are not numbers; below it, one would take the column for numbers
SHOWN = 40  # characters of a cell in a note
WORDS_SHOWN = 3
# Digits with signs of thousands, currencies or units around: people read them as numbers.
LIKE_A_NUMBER = re.compile(r"[^\w]*\d[\d.,'’\s]*[^\w]*")


def column_of(
    name: str, cells: Cells, marks: tuple[str, str | None], is_target: bool
) -> tuple[pandas.Series, list[str]]:
    """(column, notes). Empty cells are missing; NA, null, … only in a column of numbers or dates that is not a target.

    Args:
        name: of the column, for the notes.
        cells: the texts.
        marks: the decimal mark, "." or ",", and the mark of thousands that the user names.
        is_target: whether the column is to be predicted: every spelling in it is a class of its own, spaces around it
            aside.
    """
    import pandas as pd

    decimal, thousands = marks
    texts = [text for text in cells.texts if text.strip()]
    values = texts if is_target else [text for text in texts if text.strip() not in MISSING_WORDS]
    numbers = COMMA_NUMBER if decimal == "," else POINT_NUMBER
    if not texts:
        return pd.Series([float("nan")] * len(cells.codes)), []
    if values and all(map(numbers.fullmatch, values)):
        is_whole = all(map(WHOLE_NUMBER.fullmatch, values))
        reason = _why_codes(values) if is_whole else None
        if reason:
            return _texts(cells), [f"Column {name} was read as text: {reason}."]
        parsed = _parsed_whole(cells.texts, values) if is_whole else _parsed(cells.texts, values, decimal)
        return cells.spread(parsed), _missing_note(name, cells, set(texts) - set(values))
    if any(both.issuperset(texts) for both in TRUTH_VALUES):
        truths = [text.strip().lower() == "true" if text.strip() else None for text in cells.texts]
        return cells.spread(pd.Series(truths, dtype="boolean" if None in truths else "bool")), []
    return _other_column(name, cells, values, (decimal, thousands), is_target)


def column_without(
    name: str, cells: Cells, marks: tuple[str, str | None], ignored: NDArray[np.bool_]
) -> tuple[pandas.Series, list[str]]:
    """Read a column of which some rows, (n,), have no target, such as a line of sums.

    What only these rows have is missing if all other cells are numbers or dates.
    """
    import numpy as np

    column, notes = column_of(name, cells, marks, False)
    needed = np.unique(cells.codes[~ignored])
    extra = [text for code, text in enumerate(cells.texts) if code not in set(needed.tolist()) and text.strip()]
    if not extra or not _has_texts(column):
        return column, notes
    emptied = Cells(["" if text in extra else text for text in cells.texts], cells.codes)
    others, other_notes = column_of(name, emptied, marks, False)
    if _has_texts(others):
        return column, notes
    missing = f"Column {name} has {extra[0].strip()[:SHOWN]!r} in a row without a target, read as missing."
    return others, [missing, *other_notes]


def _other_column(
    name: str, cells: Cells, values: Sequence[str], marks: tuple[str, str | None], is_target: bool
) -> tuple[pandas.Series, list[str]]:
    """Read a column that is neither plain numbers nor truth values: dates, numbers with signs or units, or texts."""
    decimal, thousands = marks
    texts = [text for text in cells.texts if text.strip()]
    numbers = COMMA_NUMBER if decimal == "," else POINT_NUMBER
    dates, note = find_dates(name, cells.texts, values)
    if dates is not None:
        return cells.spread(dates), _missing_note(name, cells, set(texts) - set(values))
    notation = find_notation(values, decimal, thousands) if not is_target or len(values) > MAX_CLASSES else None
    if notation is not None:
        numbers_of = [notation.numbers.get(text, "") for text in cells.texts]
        present = set(notation.numbers.values())
        is_whole = all(map(WHOLE_NUMBER.fullmatch, present))
        parsed = _parsed_whole(numbers_of, present) if is_whole else _parsed(numbers_of, present, ".")
        missing = _missing_note(name, cells, set(texts) - set(values))
        return cells.spread(parsed), [notation.sentence(name), *missing]
    if is_target and len({text.strip() for text in texts}) < len(texts):
        spaced = next(text for text in texts if text != text.strip())
        without = f"Column {name} was read without the spaces around its values, such as {spaced[:SHOWN]!r}."
        return _texts(cells.without_spaces_around()), [*note, without]
    if is_target and not note and (words := sorted({text.strip() for text in texts} & MISSING_WORDS)):
        rest = [text for text in texts if text.strip() not in MISSING_WORDS]
        if rest and all(map(numbers.fullmatch, rest)):
            note = [
                f"Column {name} was read as text, with {words[0]!r} as a value: its cells are missing only if empty."
            ]
    return _texts(cells), note or _text_note(name, cells, numbers)


def _has_texts(column: pandas.Series) -> bool:
    """Whether a column holds texts, some of which may be missing (pandas 2 calls such a column one of objects)."""
    import pandas as pd

    return bool(pd.api.types.is_string_dtype(column) or pd.api.types.is_object_dtype(column))


def _texts(cells: Cells) -> pandas.Series:
    import pandas as pd

    return cells.spread(pd.Series([text if text.strip() else None for text in cells.texts]))


def _why_codes(numbers: Sequence[str]) -> str | None:
    """Why these whole numbers are a text; None if they are numbers."""
    code = next((text for text in numbers if "0" in text and LEADING_ZERO.fullmatch(text)), None)
    if code is not None:
        return f"{code.strip()!r} begins with a zero, as codes do"
    longest = max(numbers, key=len)
    if len(longest) < len(str(MAX_WHOLE)):
        return None
    longest = max(numbers, key=lambda text: abs(int(text)))
    return f"{longest} has more digits than a number can hold" if abs(int(longest)) > MAX_WHOLE else None


def _parsed_whole(texts: Sequence[str], numbers: Collection[str]) -> pandas.Series:
    """The texts as whole numbers; missing where they are not among `numbers`."""
    import pandas as pd

    numbers = set(numbers)
    if numbers.issuperset(texts):
        return pd.Series(list(map(int, texts)), dtype="int64")
    return pd.Series([int(text) if text in numbers else None for text in texts], dtype="Int64")


def _parsed(texts: Sequence[str], numbers: Collection[str], decimal: str) -> pandas.Series:
    """The texts as numbers; missing where they are not among `numbers`."""
    import pandas as pd

    numbers = set(numbers)
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
    if all(map(is_date, others)):
        return []
    if all(LIKE_A_NUMBER.fullmatch(text) or AFFIXED.fullmatch(text) for text in others):
        example = others[0].strip()[:SHOWN]
        return [
            f"Column {name} was read as text: {example!r} is not a number. --thousands names what stands between "
            "thousands, and --decimal the decimal mark."
        ]
    if sum(counts[text] for text in others) <= MAX_OTHERS_SHARE * sum(counts.values()):
        example = next((text for text in others if text.strip() not in MISSING_WORDS), others[0])
        return [f"Column {name} was read as text: {example.strip()[:SHOWN]!r} is not a number."]
    times = Counter(text.strip() for text in counts)
    repeated = next((text for text in times if times[text] > 1), None)
    if repeated is None:
        folded = Counter(text.casefold() for text in times)
        if max(folded.values()) == 1 or len(folded) > MAX_CLASSES:
            return []
        variants = [text for text in times if folded[text.casefold()] > 1][:2]
        return [
            f"Column {name} has {variants[0]!r} and {variants[1]!r}, which differ by capitals, as different values."
        ]
    return [f"Column {name} has {repeated[:SHOWN]!r} with and without spaces around it, as different values."]

"""Whether the first record of a text has the names of the columns, and these names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from upweight.cli.table_files.dates import is_date
from upweight.cli.table_files.numbers import MISSING_WORDS, is_number

SAMPLE_ROWS = 2000  # compared with the first record
MIN_ROWS = 8  # rows below which repeated texts say nothing about the first line
MAX_SINGLE_SHARE = 0.05  # share of values that occur once; a column with more says nothing about the first line
SHOWN_CHARACTERS = 60  # of the first line in a message
FIRST_YEAR, LAST_YEAR = 1800, 2100


def find_header(first: Sequence[str], body: Sequence[Sequence[str]], mentioned: Collection[str], name: str) -> bool:
    """Whether the first record has names: those that the user mentions, or texts above numbers or repeated texts.

    Raises:
        ValueError: there is no evidence for or against a header, or evidence for both: numbers may be names (years),
            and what the user mentions may be a value. The message names `--header`.
    """
    stripped = list(map(str.strip, first))
    is_mentioned = bool(mentioned) and set(stripped).issuperset(mentioned)
    if is_mentioned and not _may_be_values(stripped, body, mentioned):
        return True
    if mentioned and set(numbered_names(len(first))).issuperset(mentioned):
        return False
    if not body:
        return not any(map(is_value, first))
    pairs = list(zip(first, map(Counter, zip(*body[:SAMPLE_ROWS], strict=True)), strict=True))
    above_numbers = [field for field, column in pairs if _is_numeric(column)]
    numbers = [field for field in above_numbers if is_value(field)]
    if any(field.strip() not in MISSING_WORDS and not is_value(field) for field in above_numbers):
        return True
    if is_mentioned:
        raise _either(first, name)
    texts = [(field, column) for field, column in pairs if not _is_numeric(column)]
    if any(field in column for field, column in texts if field) or (numbers and not (texts and _are_years(numbers))):
        return False
    if not numbers and any(_are_repeated(column) for _, column in texts):
        return True
    raise _either(first, name)


def _either(first: Sequence[str], name: str) -> ValueError:
    shown = ", ".join(first[:3])[:SHOWN_CHARACTERS]
    return ValueError(
        f"the first line of {name} may have names of columns or values ({shown}); say --header 1 or --header none"
    )


def _may_be_values(first: Sequence[str], body: Sequence[Sequence[str]], mentioned: Collection[str]) -> bool:
    """Whether what is mentioned comes again in its column; or is a number, and any of the fields comes again.

    Names that count the columns are not values, whatever comes again.
    """
    if any(list(first) == [str(start + place) for place in range(len(first))] for start in (0, 1)):
        return False
    columns = zip(*body[:SAMPLE_ROWS], strict=True)
    again = {field for field, column in zip(first, columns, strict=False) if field in set(map(str.strip, column))}
    return not again.isdisjoint(mentioned) or bool(again and any(map(is_value, mentioned)))


def _are_repeated(column: Counter[str]) -> bool:
    """Whether nearly all values of a column occur more than once, in enough rows."""
    singles = sum(count == 1 for count in column.values())
    return column.total() >= MIN_ROWS and singles <= MAX_SINGLE_SHARE * column.total()


def is_value(field: str) -> bool:
    """Whether the text is a number or a date, which names rarely are."""
    return is_number(field) or is_date(field)


def _is_numeric(column: Iterable[str]) -> bool:
    """Whether all that is there is a number or a date."""
    values = [field for field in column if field.strip() not in MISSING_WORDS]
    return bool(values) and all(map(is_value, values))


def _are_years(fields: Sequence[str]) -> bool:
    """Whether the fields are different whole numbers of the size of years."""
    return len(set(fields)) == len(fields) and all(
        field.strip().isdecimal() and FIRST_YEAR <= int(field) <= LAST_YEAR for field in fields
    )


def numbered_names(columns: int) -> list[str]:
    """Names for columns without any: column_1, column_2, …."""
    return [f"column_{number}" for number in range(1, columns + 1)]


def unique_names(names: Sequence[str], columns: int) -> tuple[list[str], list[str]]:
    """The names, stripped, with others in place of empty and repeated ones, and a sentence for each replaced name."""
    unique: list[str] = []
    notes = []
    for number, (text, numbered) in enumerate(zip(names, numbered_names(columns), strict=True), 1):
        name = text.strip() or numbered
        while name in unique:
            name = f"{name} ({number})"
        if name != text.strip():
            reason = f"the name {text.strip()!r} comes twice" if text.strip() else "it has no name"
            notes.append(f"Column {number} is called {name!r} here, because {reason}.")
        unique.append(name)
    return unique, notes

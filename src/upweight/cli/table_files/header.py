"""Whether the first record of a text has the names of the columns, and these names."""

from __future__ import annotations

from collections.abc import Sequence

from upweight.cli.table_files.numbers import MISSING_WORDS, is_number

SAMPLE_ROWS = 2000  # compared with the first record
FIRST_YEAR, LAST_YEAR = 1800, 2100


def find_header(first: Sequence[str], body: Sequence[Sequence[str]], name: str) -> bool:
    """Whether the first record has names: texts above columns of numbers, or texts that no row has again.

    Raises:
        ValueError: numbers above columns of numbers may be names (years); the message names `--header`.
    """
    sample = body[:SAMPLE_ROWS]
    if not sample:
        return not any(is_number(field) for field in first)
    columns = list(zip(*sample, strict=True))
    numeric = [_is_numeric(column) for column in columns]
    texts_above_numbers = [
        field
        for field, is_numeric in zip(first, numeric, strict=True)
        if is_numeric and not is_number(field) and field.strip() not in MISSING_WORDS
    ]
    numbers_above_numbers = [f for f, is_numeric in zip(first, numeric, strict=True) if is_numeric and is_number(f)]
    if texts_above_numbers:
        return True
    texts = [(field, column) for field, column, n in zip(first, columns, numeric, strict=True) if not n]
    occurs_again = any(field in column for field, column in texts)
    if numbers_above_numbers:
        if texts and not occurs_again and _are_years(numbers_above_numbers):
            years = ", ".join(numbers_above_numbers[:3])
            raise ValueError(
                f"the first line of {name} has {years}, which may be names of columns or values; say --header 1 or "
                "--header none"
            )
        return False
    return not occurs_again


def _is_numeric(column: Sequence[str]) -> bool:
    values = [field for field in column if field.strip() not in MISSING_WORDS]
    return bool(values) and all(map(is_number, values))


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

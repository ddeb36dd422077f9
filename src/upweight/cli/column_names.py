"""Which columns a table has, for messages about one that it does not have."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

COLUMNS_LISTED = 20
CLOSE = 0.75  # of 1, the similarity of names that differ by a slip


def alternatives(name: str, columns: Sequence[str]) -> str:
    """The column names closest to this one, and which columns there are, as a part of a sentence."""
    by_folded = {column.casefold(): column for column in columns}
    close = [by_folded[text] for text in get_close_matches(name.casefold(), list(by_folded), 1, CLOSE)]
    meant = f"did you mean {close[0]!r}? It has " if close else "it has "
    return f"{meant}{listed(columns)}"


def listed(columns: Sequence[str]) -> str:
    """The names in the order of the table, or the first of them and how many more there are."""
    more = f" and {len(columns) - COLUMNS_LISTED:,} more" if len(columns) > COLUMNS_LISTED else ""
    return f"{', '.join(columns[:COLUMNS_LISTED])}{more}"

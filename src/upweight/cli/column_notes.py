"""Columns that a default model reads in another form than they have, and the sentences about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Reason = Literal["empty", "constant", "duplicate", "dates", "ids", "unique texts", "codes"]

ONE_BY_ONE = 3  # columns of one reason that have a sentence each; more share one
NAMES_LISTED = 30
BECAUSE: dict[Reason, str] = {
    "empty": "were left out because they are empty",
    "constant": "were left out because they are constant",
    "duplicate": "were left out because they are duplicates of others",
    "dates": "were left out because they are dates",
    "ids": "were left out because their whole numbers look like ids",
    "unique texts": "were left out because their short values hardly repeat, as categories do",
    "codes": "are read as categories because their whole numbers look like ids",
}


@dataclass(frozen=True)
class ColumnNote:
    """One column, and what happened to it.

    Attributes:
        name: of the column.
        reason: why it is not read as it is written.
        sentence: about this column alone, with what to do.
        detail: what is put in brackets behind the name in a list of columns.
    """

    name: str
    reason: Reason
    sentence: str
    detail: str = ""


def sentences(notes: Sequence[ColumnNote]) -> list[str]:
    """One sentence for every column, or for all columns of one reason if these are many."""
    texts = []
    for reason, because in BECAUSE.items():
        group = [note for note in notes if note.reason == reason]
        if len(group) <= ONE_BY_ONE:
            texts += [note.sentence for note in group]
            continue
        listed = [f"{note.name} ({note.detail})" if note.detail else note.name for note in group[:NAMES_LISTED]]
        more = f" and {len(group) - NAMES_LISTED:,} more" if len(group) > NAMES_LISTED else ""
        texts.append(f"{len(group):,} columns {because}: {', '.join(listed)}{more}.")
    return texts

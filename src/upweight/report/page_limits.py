"""How much of the data one page holds."""

from __future__ import annotations

from dataclasses import dataclass, fields

from upweight.core.blocks import require_count


@dataclass(frozen=True, kw_only=True)
class PageLimits:
    """The sizes up to which a report holds everything. What a limit leaves out is named on the page.

    Attributes:
        queries: with all their scores and strongest training examples.
        scores: of all queries together; beyond it, the highest and lowest of every query (5.3 bytes a score).
        cell_bytes: of the rows of a table; beyond it, the columns that go most with the labels.
        picture_bytes: of the pictures shown one by one.
        tiles: training pictures that the table of all training examples shows.

    Raises:
        ValueError: a limit below 1.
    """

    queries: int = 200
    scores: int = 1_000_000
    cell_bytes: int = 4_000_000
    picture_bytes: int = 8_000_000
    tiles: int = 3_000

    def __post_init__(self) -> None:
        for field in fields(self):
            require_count(field.name, getattr(self, field.name))

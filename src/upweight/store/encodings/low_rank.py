"""Factors of low rank in all directions of K-FAC's eigenbasis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from upweight.store.encodings.encoding import Encoding, Layout, fewest_numbers, require_directions


@dataclass(frozen=True, kw_only=True)
class LowRank(Encoding):
    """The best approximation of rank `rank` of a layer's gradient, in all directions; exact for one position.

    Args:
        rank: pairs of factors that are kept of a layer with several positions.
        precision: bits of a number.
    """

    summary: ClassVar[str] = "factors of low rank in all directions"

    rank: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_directions("rank", self.rank)

    def layer(self, outputs: int, inputs: int, positions: int) -> Layout:
        """Pairs of factors of all directions."""
        return Layout("pairs", outputs, inputs) if positions == 1 else fewest_numbers(outputs, inputs, self.rank)

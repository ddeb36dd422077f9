"""Coordinates in the leading directions of K-FAC's eigenbasis: what a store keeps of examples with one position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from upweight.store.encodings.encoding import Encoding, Layout, fewest_numbers, require_directions
from upweight.store.quantisation import Precision


@dataclass(frozen=True, kw_only=True)
class Coordinates(Encoding):
    """Factors of a layer's gradient in the leading eigenvectors of K-FAC's factors.

    A gradient of one position is s aᵀ, and both factors are kept. That of several positions (sequences, convolutions)
    is kept as the pairs of factors of its best approximation of rank `rank`.

    Args:
        directions: eigenvectors of each side of a layer that are kept, those of the largest eigenvalues.
        rank: pairs of factors that are kept of a layer with several positions.
        precision: bits of a number.

    What lies in other directions is lost: the order of the strongest and sums over many examples stay, the order of
    all examples does not. The kept share is said by `Store.plan` and in the diagnostics of every answer.
    """

    summary: ClassVar[str] = "coordinates in K-FAC's eigenbasis"

    precision: Precision = "int4"
    directions: int = 128
    rank: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_directions("directions", self.directions)
        require_directions("rank", self.rank)

    def layer(self, outputs: int, inputs: int, positions: int) -> Layout:
        """Pairs of factors of at most `directions` numbers each."""
        left, right = min(self.directions, outputs), min(self.directions, inputs)
        return Layout("pairs", left, right) if positions == 1 else fewest_numbers(left, right, self.rank)

    def parameter(self, size: int) -> Layout | None:
        """The numbers with the largest eigenvalues."""
        return super().parameter(size) and Layout("numbers", min(size, self.directions), 1)

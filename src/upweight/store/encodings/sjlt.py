"""SJLT: random sums of the numbers of a gradient, each number with a random sign in one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from upweight.store.encodings.encoding import Encoding, Layout, require_directions


@dataclass(frozen=True, kw_only=True)
class SJLT(Encoding):
    """Sparse Johnson–Lindenstrauss sums of a layer's gradient in K-FAC's eigenbasis, divided by typical sizes there.

    (Pg)_j = Σ_{h(r) = j} σ_r g_r / size_r with h and σ drawn from the store's seed. Inner products hold on average;
    their noise is 1/√count over the cosine of the two rows. It is here for comparison: directions of `Coordinates` have
    no noise for the same bytes.

    Args:
        count: sums of one layer.
        precision: bits of a number.
    """

    summary: ClassVar[str] = "SJLT of scaled gradients"

    count: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        require_directions("count", self.count)

    def layer(self, outputs: int, inputs: int, positions: int) -> Layout:
        """Random sums, or the numbers themselves if they are no more."""
        if outputs * inputs <= self.count:
            return Layout("numbers", outputs, inputs)
        return Layout("sketch", outputs, inputs, count=self.count)

"""LoGra (Choe et al. 2024): a layer's gradient, projected from both sides, here on K-FAC's leading eigenvectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from upweight.store.encodings.encoding import Encoding, Layout, require_directions


@dataclass(frozen=True, kw_only=True)
class LoGra(Encoding):
    """Pₛᵀ G P_A with the leading eigenvectors of K-FAC's factors on both sides (LoGra's initialisation by PCA).

    Args:
        directions: eigenvectors of each side of a layer.
        precision: bits of a number.

    Its rows are cheaper to make and to multiply than pairs of factors. For the same bytes they lose more of layers with
    one position; of those with several, 96 directions in three bits lose less than pairs of rank 4.
    """

    summary: ClassVar[str] = "LoGra in K-FAC's eigenvectors"

    directions: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        require_directions("directions", self.directions)

    def layer(self, outputs: int, inputs: int, positions: int) -> Layout:
        """All products of the leading directions."""
        return Layout("numbers", min(self.directions, outputs), min(self.directions, inputs))

    def parameter(self, size: int) -> Layout | None:
        """As many numbers of an unfactored parameter as of a layer: those with the largest eigenvalues."""
        return super().parameter(size) and Layout("numbers", min(size, self.directions**2), 1)

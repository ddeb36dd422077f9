"""Exact factors: the gradients of examples of one position, as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from upweight.store.encodings.encoding import Encoding, Layout
from upweight.store.quantisation import Precision


@dataclass(frozen=True, kw_only=True)
class ExactFactors(Encoding):
    """Inputs and output gradients of every layer: the gradient itself, for examples of one position.

    Every curvature is possible, and scores have the unit that they have without a store. Layers with several positions
    are refused by name: `LowRank` and `Coordinates` are for them.

    Args:
        precision: bits of a number.
    """

    summary: ClassVar[str] = "exact factors"
    keeps_gradients: ClassVar[bool] = True

    precision: Precision = "float32"

    def layer(self, outputs: int, inputs: int, positions: int) -> Layout:
        """One pair of factors. Raises ValueError for several positions."""
        if positions > 1:
            raise ValueError(
                f"exact factors are kept of layers with one position, got {positions} positions; use LowRank() or "
                "Coordinates()"
            )
        return Layout("pairs", outputs, inputs)

    def table(self, rows: int, columns: int, lookups: int | None) -> Layout:
        """All numbers."""
        return self.parameter(rows * columns)

    def parameter(self, size: int) -> Layout:
        """All numbers."""
        return Layout("numbers", size, 1)

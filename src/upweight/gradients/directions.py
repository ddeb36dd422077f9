"""Directions: per-example gradients divided by their norms, as they are captured."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples
from upweight.gradients.captured import Captured
from upweight.gradients.network import Network, Quantity
from upweight.gradients.rows import CapturedRows


class Directions(CapturedRows):
    """Row i = ∇quantityᵢ / ‖∇quantityᵢ‖, or the same for the part of each layer; zero where the gradient is.

    Args:
        by_layer: divide the parameters of each module by their own norm.
    """

    def __init__(self, network: Network, examples: Examples, quantity: Quantity, by_layer: bool) -> None:
        super().__init__(network, examples, quantity)
        self.by_layer = by_layer

    def passes(self, start: int = 0, size: int | None = None, ready: bool = False) -> Iterator[tuple[slice, Captured]]:
        """Batches, scaled."""
        for where, batch in super().passes(start, size, ready):
            squares = batch.squares_by_name()
            groups = {name: name.rpartition(".")[0] if self.by_layer else "" for name in squares}
            totals: dict[str, Tensor] = {}
            for name, group in groups.items():
                totals[group] = totals[group] + squares[name] if group in totals else squares[name]
            scales = {group: torch.where(s > 0, s.clamp_min(0).rsqrt(), 0.0) for group, s in totals.items()}
            yield where, batch.scaled({name: scales[group] for name, group in groups.items()})

    def take(self, positions: NDArray[np.intp]) -> Directions:
        """The rows at these positions."""
        return Directions(self.network, self.examples.take(positions), self.quantity, self.by_layer)

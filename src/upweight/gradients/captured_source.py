"""Per-example gradients that are kept somewhere, as rows read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.network import Network


class CapturedSource(Protocol):
    """Gradients of training losses that were captured before."""

    def batches(self, positions: NDArray[np.intp], size: int | None = None) -> Iterator[tuple[slice, CapturedBatch]]:
        """(which of the positions, their gradients without weights), at most `size` at a time and in their order."""

    def covers(self, network: Network) -> bool:
        """Whether they are gradients of all parameters of this network, or of a network that has these among others."""

"""The diagonal of the empirical Fisher: one number per parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.curvature import Curvature, Solved
from upweight.core.rows import Rows
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.no_curvature import require_curvature
from upweight.curvature.saved_tensors import as_array, as_tensor
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]


class FittedDiagonal(Curvature):
    """The diagonal Σ wᵢ gᵢ² of the empirical Fisher, plus the shift. Scores have unit RANK.

    Cost: one pass. Gradients of rank above one are materialised, a few at a time.
    """

    def __init__(self, summed: SummedObjective, saved: SavedState = NOTHING_SAVED) -> None:
        self.summed = summed
        self.values: dict[str, Tensor] = {}
        if saved:
            network = summed.network
            self.values = {name: as_tensor(saved, name, network.shapes[name], network) for name in network.names}
            return
        for _, batch in CapturedRows(summed.network, summed.train, "loss", weights=np.sqrt(summed.weights)).passes():
            for name in summed.network.names:
                squares = batch.sum_of_squares(name)
                self.values[name] = self.values[name] + squares if name in self.values else squares

        require_curvature("Diagonal", summed.shift + sum(float(values.sum()) for values in self.values.values()))

    def matvec(self, vectors: Array) -> Array:
        """(diag + shift) v."""
        network = self.summed.network
        blocks = network.split(vectors)
        return network.join({name: blocks[name] * (v + self.summed.shift) for name, v in self.values.items()})

    def solve(self, rows: Rows) -> Solved:
        """(diag + shift)⁻¹ rows, by division."""
        network = self.summed.network
        blocks = TensorRows.of(network, rows).blocks
        divided = {name: blocks[name] / (v + self.summed.shift) for name, v in self.values.items()}
        return Solved(TensorRows(network, divided), 0.0, 0, True)

    def state(self) -> SavedState:
        """The diagonal, by parameter."""
        state = SavedState({name: as_array(values) for name, values in self.values.items()})
        return self.summed.saved_state(self, state)

    @property
    def calibrated(self) -> bool:
        """False, since this is an approximation."""
        return False

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Kind, solver, size and damping."""
        return self.summed.diagnostics("diagonal of the empirical Fisher", "division")

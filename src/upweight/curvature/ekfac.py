"""KFAC and EK-FAC, fitted: the Gauss–Newton matrix as a rotation per layer and one number per rotated parameter.

KFAC (Martens & Grosse 2015): eigenvalues of A ⊗ S. EK-FAC (George et al. 2018): in the same eigenbasis the true second
moments Λ = Σ (Qₛᵀ G Q_A)². Both with the exact expectation over labels, so that nothing depends on a draw.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.curvature import Curvature, Solved
from upweight.core.rows import Rows
from upweight.curvature.expectation import expected_gradients
from upweight.curvature.kfac import Layer, diagonal_rest, kronecker_factors, with_ones
from upweight.curvature.objective import Summed
from upweight.gradients.rows import TensorRows

Array = NDArray[np.float64]


class FittedEKFAC(Curvature):
    """Kronecker-factored curvature plus shift; `corrected` says whether eigenvalues are the true second moments.

    Cost: outputs × one backward pass, one eigendecomposition per layer side, and for the correction the same passes
    again (for layers without positions two matrix products a batch). Memory d_i² + d_o² + d_i·d_o per layer.
    """

    def __init__(self, summed: Summed, corrected: bool = True) -> None:
        self.summed, self.corrected = summed, corrected
        self.layers = kronecker_factors(summed)
        self.rest = diagonal_rest(summed, self.layers)
        if corrected:
            self._correct()

    def inverse(self, blocks: dict[str, Tensor]) -> dict[str, Tensor]:
        """(C + shift)⁻¹ on blocks name → (k, *shape)."""
        return self._apply(blocks, lambda values: 1.0 / (values + self.summed.shift))

    def matvec(self, vectors: Array) -> Array:
        """(C + shift) v."""
        network = self.summed.network
        return network.join(self._apply(network.split(vectors), lambda values: values + self.summed.shift))

    def solve(self, rows: Rows) -> Solved:
        """By rotation and division; exact for this curvature."""
        tensors = TensorRows.of(self.summed.network, rows)
        return Solved(TensorRows(self.summed.network, self.inverse(tensors.blocks)), 0.0, 0, True)

    @property
    def calibrated(self) -> bool:
        """False: an approximation, however good."""
        return False

    @property
    def diagnostics(self) -> dict[str, Any]:
        """What was built, and how much of the net is in Kronecker form."""
        network = self.summed.network
        kept = sum(layer.values.numel() for layer in self.layers.values())
        return {
            "curvature": ("EK-FAC" if self.corrected else "KFAC") + " of the Gauss–Newton matrix, exact over labels",
            "solver": "eigenbasis per layer",
            "parameters": network.size,
            "kronecker_share": kept / network.size,
            "damping": self.summed.mean_damping,
            "damping_from": self.summed.damping_from,
        }

    def _apply(self, blocks: dict[str, Tensor], function: Any) -> dict[str, Tensor]:
        out = {name: blocks[name] * function(values) for name, values in self.rest.items()}
        for layer in self.layers.values():
            joint = layer.rotate(layer.joined(blocks)) * function(layer.values)
            out |= layer.parted(layer.rotate_back(joint), self.summed.network.shapes)
        return out

    def _correct(self) -> None:
        """Λ = Σ (Qₛᵀ G Q_A)² over examples and label directions."""
        for layer in self.layers.values():
            layer.values = torch.zeros_like(layer.values)
        for _, captured in expected_gradients(self.summed):
            for factors in captured.layers():
                add_squares(self.layers[factors.weight], with_ones(factors), factors.s)


def add_squares(layer: Layer, a: Tensor, s: Tensor) -> None:
    """Rotate first, square then: without positions a gradient is rank one, and its square the product of squares."""
    a, s = a @ layer.right, s @ layer.left
    if a.shape[1] == 1:
        layer.values += (s[:, 0] ** 2).T @ (a[:, 0] ** 2)
    else:
        layer.values += (s.transpose(1, 2) @ a).square_().sum(dim=0)

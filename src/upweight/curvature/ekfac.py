"""KFAC and EK-FAC, fitted: the Gauss–Newton matrix as a rotation per layer and one number per rotated parameter.

KFAC (Martens & Grosse 2015): eigenvalues of A ⊗ S. EK-FAC (George et al. 2018): in the same eigenbasis the true second
moments Λ = Σ (Qₛᵀ G Q_A)². Both with the exact expectation over labels, so that nothing depends on a draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.curvature import Curvature, Solved
from upweight.core.rows import Rows
from upweight.curvature.expectation import expected_gradients
from upweight.curvature.kfac import Layer, diagonal_rest, kronecker_factors, with_ones
from upweight.curvature.leverage import corrected
from upweight.curvature.objective import Summed
from upweight.gradients.captured import Captured
from upweight.gradients.rows import TensorRows

Array = NDArray[np.float64]
MOST = 0.9  # that an example may hold of its own prediction: the factors know it less well than this


class FittedEKFAC(Curvature):
    """Kronecker-factored curvature plus shift; `refined` says whether eigenvalues are the true second moments.

    Cost: outputs × one backward pass, one eigendecomposition per layer side, and to refine the eigenvalues the same
    passes again (for layers without positions two matrix products a batch). Memory d_i² + d_o² + d_i·d_o per layer.
    """

    def __init__(self, summed: Summed, refined: bool = True) -> None:
        self.summed, self.refined = summed, refined
        self.layers = kronecker_factors(summed)
        self.rest = diagonal_rest(summed, self.layers)
        if refined:
            self._refine()

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

    def corrected(self, rows: Rows) -> Rows | None:
        """Through the eigenbasis: for layers without positions a product of matrices, about what the fit took."""
        return corrected(self.summed, rows, self, MOST)

    def meetings(self, rows: Sequence[Captured]) -> Tensor:
        """⟨xᵢ, (C + shift)⁻¹ yᵢ⟩ of every two of k sets of rows of the same examples, (examples, k, k)."""
        shift, out = self.summed.shift, rows[0].like.new_zeros(rows[0].count, len(rows), len(rows))
        inside = zip(*(batch.layers() for batch in rows), strict=True)
        for factors in inside:
            layer = self.layers[factors[0].weight]
            inverse = 1 / (layer.values + shift)
            a = with_ones(factors[0]) @ layer.right
            s = torch.stack([one.s @ layer.left for one in factors])  # (k, B, T, d_o)
            if a.shape[1] == 1:
                weighted = s[:, :, 0] * (a[:, 0] ** 2 @ inverse.T)
                out += torch.einsum("cbo,dbo->bcd", weighted, s[:, :, 0])
            else:
                for i in range(len(a)):
                    each = (s[:, i].transpose(1, 2) @ a[i]).flatten(1)
                    out[i] += (each * inverse.flatten()) @ each.T
        for name, values in self.rest.items():
            each = torch.stack([batch.materialise(name).flatten(1) for batch in rows])
            out += torch.einsum("cbp,dbp->bcd", each / (values.flatten() + shift), each)
        return out

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
            "curvature": ("EK-FAC" if self.refined else "KFAC") + " of the Gauss–Newton matrix, exact over labels",
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

    def _refine(self) -> None:
        """Λ = Σ (Qₛᵀ G Q_A)² over examples and label directions."""
        for layer in self.layers.values():
            layer.values = torch.zeros_like(layer.values)
        for _, captured in expected_gradients(self.summed):
            for factors in captured.layers():
                _add_squares(self.layers[factors.weight], with_ones(factors), factors.s)


def _add_squares(layer: Layer, a: Tensor, s: Tensor) -> None:
    """Rotate first, square then: without positions a gradient is rank one, and its square the product of squares."""
    a, s = a @ layer.right, s @ layer.left
    if a.shape[1] == 1:
        layer.values += (s[:, 0] ** 2).T @ (a[:, 0] ** 2)
    else:
        layer.values += (s.transpose(1, 2) @ a).square_().sum(dim=0)

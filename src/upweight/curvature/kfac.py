"""Kronecker factors of each layer, A = E[a aᵀ] of inputs and S = E[s sᵀ] of output gradients, with eigenvectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.curvature.label_expectation import expected_batches
from upweight.curvature.summed_objective import SummedObjective
from upweight.curvature.unfactored_parameters import UnfactoredParameter, UnfactoredParameters
from upweight.gradients.captured_batch import LayerFactors

Blocks = dict[str, Tensor]
PendingInputs = dict[str, tuple[Tensor, Tensor, Tensor]]  # one batch: inputs, which positions count, weights


@dataclass
class FactoredLayer:
    """One layer's factors and, after `decompose`, its eigenvectors and eigenvalues (summed scale, (d_o, d_i [+ 1]))."""

    weight: str
    bias: str | None
    swapped: bool
    inputs: Tensor  # Σ w a aᵀ over examples and positions that count; a ends with a one if there is a bias
    slopes: Tensor  # Σ w s sᵀ over examples, positions and directions
    positions: float = 0.0  # Σ w over the positions of `inputs`
    examples: float = 0.0  # Σ w
    values: Tensor = field(default_factory=lambda: torch.empty(0))
    left: Tensor = field(default_factory=lambda: torch.empty(0))  # eigenvectors of S
    right: Tensor = field(default_factory=lambda: torch.empty(0))  # eigenvectors of A

    def decompose(self, total: float) -> None:
        """Compute the eigenvectors of both factors and the eigenvalues of total · A ⊗ S."""
        a, self.right = torch.linalg.eigh(self.inputs.double() / (self.positions or 1.0))
        s, self.left = torch.linalg.eigh(self.slopes.double() / self.examples)
        self.values = total * s.clamp_min(0)[:, None] * a.clamp_min(0)[None, :]
        precision = self.inputs.dtype
        self.right, self.left = self.right.to(precision), self.left.to(precision)
        self.values = self.values.to(precision)

    def rotate(self, joint: Tensor) -> Tensor:
        """Qₛᵀ V Q_A for V (k, d_o, d_i)."""
        return _left_multiply(self.left.T, joint @ self.right)

    def rotate_factors(self, factors: LayerFactors) -> Tensor:
        """Qₛᵀ (Σ_t s_t a_tᵀ) Q_A of every example; rotates the factors or their product, whichever is cheaper."""
        a, s = factors.a, factors.s
        (d_o, d_i), positions = (len(self.left), len(self.right)), s.shape[1]
        if positions * (d_i**2 + d_o**2) < d_i * d_o * (d_i + d_o):
            return (s @ self.left).transpose(1, 2) @ (with_ones(factors) @ self.right)
        joint = s.transpose(1, 2) @ a
        return self.rotate(joint if factors.bias is None else torch.cat([joint, s.sum(1)[:, :, None]], dim=2))

    def rotate_back(self, joint: Tensor) -> Tensor:
        """Qₛ V Q_Aᵀ."""
        return _left_multiply(self.left, joint @ self.right.T)

    def join(self, blocks: Mapping[str, Tensor]) -> Tensor:
        """Weight and bias of this layer as (k, d_o, d_i [+ 1])."""
        weight = blocks[self.weight]
        weight = weight.transpose(1, 2) if self.swapped else weight.flatten(2)
        return weight if self.bias is None else torch.cat([weight, blocks[self.bias][:, :, None]], dim=2)

    def split(self, joint: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> Blocks:
        """The inverse of `join`: weight and bias by name."""
        weight = joint if self.bias is None else joint[:, :, :-1]
        weight = weight.transpose(1, 2) if self.swapped else weight
        out = {self.weight: weight.reshape(len(joint), *shapes[self.weight])}
        return out if self.bias is None else {**out, self.bias: joint[:, :, -1]}


def _left_multiply(matrix: Tensor, joint: Tensor) -> Tensor:
    """matrix @ joint as one matrix product, several times as fast as k small ones."""
    k, d_o, d_i = joint.shape
    return (matrix @ joint.transpose(0, 1).reshape(d_o, k * d_i)).view(len(matrix), k, d_i).transpose(0, 1)


def with_ones(factors: LayerFactors) -> Tensor:
    """a (B, T, d_i), with a column of ones if the layer has a bias."""
    return factors.a if factors.bias is None else torch.cat([factors.a, torch.ones_like(factors.a[..., :1])], dim=-1)


def kronecker_factors(summed: SummedObjective) -> tuple[dict[str, FactoredLayer], dict[str, UnfactoredParameter]]:
    """(weight name → factors of a layer whose gradient is an outer product, name → parameter of no layer); one pass."""
    layers: dict[str, FactoredLayer] = {}
    unfactored: UnfactoredParameters | None = None
    pending: PendingInputs = {}
    for direction, where, captured in expected_batches(summed):
        if direction == 0:
            _add_inputs(layers, pending)
        for factors in captured.layers():
            s = factors.s.flatten(0, 1)
            if factors.weight not in layers:
                sizes = factors.a.shape[-1] + (factors.bias is not None), s.shape[1]
                zeros = (s.new_zeros(sizes[0], sizes[0]), s.new_zeros(sizes[1], sizes[1]))
                layers[factors.weight] = FactoredLayer(factors.weight, factors.bias, factors.swapped, *zeros)
            layer = layers[factors.weight]
            layer.slopes += s.T @ s
            counts = (s != 0).any(dim=1)
            if direction > 0:  # the inputs are the same for every direction
                pending[factors.weight][1].logical_or_(counts)
            else:
                weights = position_weights(summed.weights[where], factors.s)
                pending[factors.weight] = with_ones(factors).flatten(0, 1), counts, weights
        unfactored = unfactored or UnfactoredParameters(summed, parameter_names(layers))
        unfactored.add(captured)
    _add_inputs(layers, pending)
    total = float(summed.weights.sum())
    for layer in layers.values():
        layer.examples = total
        layer.decompose(total)
    return layers, (unfactored or UnfactoredParameters(summed, parameter_names(layers))).decompose()


def _add_inputs(layers: Mapping[str, FactoredLayer], pending: PendingInputs) -> None:
    """Add a batch's inputs to A, at the positions that the loss depends on: padding carries no information.

    Output gradients carry √w already. Inputs carry no weight, so each row is weighted here, as that many copies would.
    """
    for weight, (a, counts, position_weight) in pending.items():
        inputs, weights = a[counts], position_weight[counts]
        layers[weight].inputs += inputs.T @ (weights[:, None] * inputs)
        layers[weight].positions += float(weights.double().sum())
    pending.clear()


def position_weights(weights: NDArray[np.float64], like: Tensor) -> Tensor:
    """Weights (B,) repeated for every position of factors (B, T, d): (B·T,)."""
    return torch.as_tensor(weights).to(like).repeat_interleave(like.shape[1])


def parameter_names(layers: Mapping[str, FactoredLayer]) -> set[str]:
    """Names of all parameters in these layers."""
    return {name for layer in layers.values() for name in (layer.weight, layer.bias) if name is not None}

"""Kronecker factors of each layer, A = E[a aᵀ] of inputs and S = E[s sᵀ] of output gradients, with eigenvectors.

A side as wide as a vocabulary has only the diagonal of its factor: memory of the whole grows as the square of the width
and time as the cube. It is not rotated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.curvature.label_expectation import Weighted, expected_batches
from upweight.curvature.summed_objective import SummedObjective
from upweight.curvature.unfactored_parameters import MAX_ROTATED_AXIS, UnfactoredParameter, UnfactoredParameters
from upweight.gradients.captured_batch import LayerFactors

Blocks = dict[str, Tensor]
PendingInputs = dict[str, tuple[Tensor, Tensor, Tensor]]  # one batch: inputs, which positions count, weights


@dataclass
class FactoredLayer:
    """One layer's factors and, after `decompose`, its eigenvectors and eigenvalues (summed scale, (d_o, d_i [+ 1]))."""

    weight: str
    bias: str | None
    swapped: bool
    inputs: Tensor  # Σ w a aᵀ over examples and positions that count, or its diagonal; a ends with a one for a bias
    slopes: Tensor  # Σ w s sᵀ over examples, positions and directions, or its diagonal
    positions: float = 0.0  # Σ w over the positions of `inputs`
    examples: float = 0.0  # Σ w
    values: Tensor = field(default_factory=lambda: torch.empty(0))
    left: Tensor | None = None  # eigenvectors of S; None if that is diagonal
    right: Tensor | None = None  # eigenvectors of A; None if that is diagonal

    def decompose(self, total: float) -> None:
        """Compute the eigenvectors of both factors and the eigenvalues of total · A ⊗ S."""
        a, self.right = _eigenvectors(self.inputs.double() / (self.positions or 1.0), self.inputs.dtype)
        s, self.left = _eigenvectors(self.slopes.double() / self.examples, self.inputs.dtype)
        self.values = total * s.clamp_min(0)[:, None] * a.clamp_min(0)[None, :]
        self.values = self.values.to(self.inputs.dtype)

    @property
    def diagonal_width(self) -> int:
        """The width of the widest side whose factor is diagonal; 0 if none is."""
        return max([len(factor) for factor in (self.inputs, self.slopes) if factor.ndim == 1], default=0)

    def rotate_inputs(self, a: Tensor) -> Tensor:
        """a Q_A."""
        return a if self.right is None else a @ self.right

    def rotate_slopes(self, s: Tensor) -> Tensor:
        """s Qₛ."""
        return s if self.left is None else s @ self.left

    def rotate(self, joint: Tensor) -> Tensor:
        """Qₛᵀ V Q_A for V (k, d_o, d_i)."""
        joint = self.rotate_inputs(joint)
        return joint if self.left is None else _left_multiply(self.left.T, joint)

    def rotate_factors(self, factors: LayerFactors) -> Tensor:
        """Qₛᵀ (Σ_t s_t a_tᵀ) Q_A of every example; rotates the factors or their product, whichever is cheaper."""
        a, s = factors.a, factors.s
        (d_o, d_i), positions = self.values.shape, s.shape[1]
        if positions * (d_i**2 + d_o**2) < d_i * d_o * (d_i + d_o):
            return self.rotate_slopes(s).transpose(1, 2) @ self.rotate_inputs(with_ones(factors))
        joint = s.transpose(1, 2) @ a
        return self.rotate(joint if factors.bias is None else torch.cat([joint, s.sum(1)[:, :, None]], dim=2))

    def rotate_back(self, joint: Tensor) -> Tensor:
        """Qₛ V Q_Aᵀ."""
        joint = joint if self.right is None else joint @ self.right.T
        return joint if self.left is None else _left_multiply(self.left, joint)

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


def zero_factor(width: int, like: Tensor) -> Tensor:
    """A factor of zeros, (width, width), or the diagonal of one if the side is too wide to be rotated."""
    return like.new_zeros(width) if width > MAX_ROTATED_AXIS else like.new_zeros(width, width)


def add_products(factor: Tensor, rows: Tensor, weighted: Tensor) -> None:
    """Add rowsᵀ weighted to a factor, or the diagonal of that to a diagonal factor."""
    factor += (rows * weighted).sum(dim=0) if factor.ndim == 1 else rows.T @ weighted


def _eigenvectors(factor: Tensor, precision: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """(eigenvalues, eigenvectors in this precision) of a factor; a diagonal one has its own values, and no vectors."""
    if factor.ndim == 1:
        return factor, None
    values, vectors = torch.linalg.eigh(factor)
    return values, vectors.to(precision)


def _left_multiply(matrix: Tensor, joint: Tensor) -> Tensor:
    """matrix @ joint as one matrix product, several times as fast as k small ones."""
    k, d_o, d_i = joint.shape
    return (matrix @ joint.transpose(0, 1).reshape(d_o, k * d_i)).view(len(matrix), k, d_i).transpose(0, 1)


def with_ones(factors: LayerFactors) -> Tensor:
    """a (B, T, d_i), with a column of ones if the layer has a bias."""
    return factors.a if factors.bias is None else torch.cat([factors.a, torch.ones_like(factors.a[..., :1])], dim=-1)


def kronecker_factors(summed: SummedObjective) -> tuple[dict[str, FactoredLayer], dict[str, UnfactoredParameter]]:
    """(weight name → factors of a layer whose gradient is an outer product, name → parameter of no layer); one pass."""
    layers, unfactored = factor_sums(summed, summed.weighted)
    total = float(summed.weights.sum())
    for layer in layers.values():
        layer.examples = total
        layer.decompose(total)
    return layers, unfactored.decompose()


def factor_sums(summed: SummedObjective, sample: Weighted) -> tuple[dict[str, FactoredLayer], UnfactoredParameters]:
    """The sums over these examples that the factors are made of, before `decompose`; one pass."""
    layers: dict[str, FactoredLayer] = {}
    unfactored: UnfactoredParameters | None = None
    pending: PendingInputs = {}
    for direction, where, captured in expected_batches(summed, sample):
        if direction == 0:
            _add_inputs(layers, pending)
        for factors in captured.layers():
            s = factors.s.flatten(0, 1)
            if factors.weight not in layers:
                sizes = factors.a.shape[-1] + (factors.bias is not None), s.shape[1]
                zeros = (zero_factor(sizes[0], s), zero_factor(sizes[1], s))
                layers[factors.weight] = FactoredLayer(factors.weight, factors.bias, factors.swapped, *zeros)
            layer = layers[factors.weight]
            add_products(layer.slopes, s, s)
            counts = (s != 0).any(dim=1)
            if direction > 0:  # the inputs are the same for every direction
                pending[factors.weight][1].logical_or_(counts)
            else:
                weights = position_weights(sample[1][where], factors.s)
                pending[factors.weight] = with_ones(factors).flatten(0, 1), counts, weights
        unfactored = unfactored or UnfactoredParameters(summed, parameter_names(layers), sample)
        unfactored.add(captured)
    _add_inputs(layers, pending)
    return layers, unfactored or UnfactoredParameters(summed, parameter_names(layers), sample)


def _add_inputs(layers: Mapping[str, FactoredLayer], pending: PendingInputs) -> None:
    """Add a batch's inputs to A, at the positions that the loss depends on: padding carries no information.

    Output gradients carry √w already. Inputs carry no weight, so each row is weighted here, as that many copies would.
    """
    for weight, (a, counts, position_weight) in pending.items():
        inputs, weights = a[counts], position_weight[counts]
        add_products(layers[weight].inputs, inputs, weights[:, None] * inputs)
        layers[weight].positions += float(weights.double().sum())
    pending.clear()


def position_weights(weights: NDArray[np.float64], like: Tensor) -> Tensor:
    """Weights (B,) repeated for every position of factors (B, T, d): (B·T,)."""
    return torch.as_tensor(weights).to(like).repeat_interleave(like.shape[1])


def parameter_names(layers: Mapping[str, FactoredLayer]) -> set[str]:
    """Names of all parameters in these layers."""
    return {name for layer in layers.values() for name in (layer.weight, layer.bias) if name is not None}


def diagonal_warnings(layers: Mapping[str, FactoredLayer]) -> list[str]:
    """A sentence for every layer with a factor that keeps only its diagonal."""
    return [
        f"The layer of {name!r} is {layer.diagonal_width:,} wide: the Kronecker factor of that side keeps only "
        f"its diagonal (above a width of {MAX_ROTATED_AXIS:,}), so correlations within it are left out."
        for name, layer in layers.items()
        if layer.diagonal_width
    ]

"""Kronecker factors of each layer, A = E[a aᵀ] of inputs and S = E[s sᵀ] of output gradients, with eigenvectors.

A side as wide as a vocabulary has only the diagonal of its factor: memory of the whole grows as the square of the width
and time as the cube. It is not rotated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.blocks import blocks
from upweight.core.examples import Examples
from upweight.curvature.content_keys import Keys, random_numbers
from upweight.curvature.label_expectation import Weighted, direction_batches, expectation_of, sample_keys
from upweight.curvature.summed_objective import SummedObjective
from upweight.curvature.unfactored_parameters import MAX_ROTATED_AXIS, UnfactoredParameter, UnfactoredParameters
from upweight.gradients.captured_batch import LayerFactors
from upweight.gradients.flushed_denormals import flushed_denormals
from upweight.gradients.gradient_terms import MAX_TEMPORARY_NUMBERS
from upweight.gradients.patches import patches_at, rotated_patches

Blocks = dict[str, Tensor]
MIN_CONVOLVED_CHANNELS = 32  # channels from which a convolution is faster than the product of its patches
ROWS_PER_WIDTH = 16  # rows over the width of an input factor, from which it is estimated if draws are taken anyway


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
    length: int = 1  # positions of one picture, if the layer is a convolution
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
        return next(self.rotate_directions([factors]))

    def rotate_directions(self, directions: Sequence[LayerFactors]) -> Iterator[Tensor]:
        """Qₛᵀ (Σ_t s_t a_tᵀ) Q_A of every example for several sets of output gradients with the same inputs.

        The inputs are rotated once for all of them, if that is cheaper than to rotate every product.
        """
        first = directions[0]
        (d_o, d_i), positions, count = self.values.shape, first.uses[0].length * len(first.uses), len(directions)
        by_factors = positions * d_i**2 + count * positions * d_o * d_o
        if by_factors < count * d_i * d_o * (d_i + d_o):
            a = self.rotated_inputs_of(first)
            yield from (self.rotate_slopes(factors.s).transpose(1, 2) @ a for factors in directions)
            return
        a = first.a
        for factors in directions:
            yield self.rotate(joint_gradients(factors, a))

    def rotated_inputs_of(self, factors: LayerFactors) -> Tensor:
        """a Q_A; for a convolution of many channels without forming its patches."""
        convolution = factors.convolution
        if convolution is None or self.right is None or convolution.module.weight.shape[1] < MIN_CONVOLVED_CHANNELS:
            return self.rotate_inputs(with_ones(factors))
        return rotated_patches(convolution.module, convolution.inputs, self.right, factors.bias is not None)

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
    with flushed_denormals():
        factor += (rows * weighted).sum(dim=0) if factor.ndim == 1 else rows.T @ weighted


def _rows(vectors: Tensor) -> Tensor:
    """Vectors (B, T, d) as rows (B·T, d); if positions come last in memory, they stay there, which is faster."""
    if vectors.stride(1) > vectors.stride(2):
        return vectors.flatten(0, 1)
    return vectors.permute(2, 0, 1).flatten(1).T


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


def joint_gradients(factors: LayerFactors, a: Tensor) -> Tensor:
    """Σ_t s_t a_tᵀ of every example, (B, d_o, d_i), with the gradient of the bias as last column if there is one.

    `a` is that of the factors, which a convolution forms anew whenever it is asked.
    """
    joint = factors.s.transpose(1, 2) @ a
    return joint if factors.bias is None else torch.cat([joint, factors.s.sum(dim=1)[:, :, None]], dim=2)


class FactorSums(NamedTuple):
    """What the factors are made of.

    Attributes:
        layers: weight name → sums of a layer whose gradient is an outer product, before `decompose`.
        unfactored: sums of the parameters of no layer.
        hessian_norms: ‖Λ‖ of every example (Frobenius), (n,); None if label directions are drawn.
    """

    layers: dict[str, FactoredLayer]
    unfactored: UnfactoredParameters
    hessian_norms: NDArray[np.float64] | None


def kronecker_factors(
    summed: SummedObjective,
) -> tuple[dict[str, FactoredLayer], dict[str, UnfactoredParameter], NDArray[np.float64] | None]:
    """(weight name → factors of a layer, name → parameter of no layer, norms of the output Hessians); one pass."""
    layers, unfactored, norms = factor_sums(summed, summed.weighted)
    total = float(summed.weights.sum())
    for layer in layers.values():
        layer.examples = total
        layer.decompose(total)
    return layers, unfactored.decompose(), norms


def factor_sums(summed: SummedObjective, sample: Weighted) -> FactorSums:
    """The sums over these examples that the factors are made of, before `decompose`; one pass."""
    norms: list[Tensor] = []
    layers: dict[str, FactoredLayer] = {}
    positions: dict[str, Tensor] = {}
    unfactored: UnfactoredParameters | None = None
    selection = InputSelection(summed, sample[0])
    for where, gradients, of_batch in direction_batches(summed, sample):
        norms += [] if of_batch is None else [of_batch]
        weights = torch.as_tensor(sample[1][where])
        keys = None if selection.keys is None else selection.keys[where]
        for directions in zip(*(captured.layers() for captured in gradients), strict=True):
            first = directions[0]
            if first.weight not in layers:
                sizes = first.width + (first.bias is not None), first.s.shape[2]
                zeros = (zero_factor(sizes[0], first.s), zero_factor(sizes[1], first.s))
                layers[first.weight] = FactoredLayer(first.weight, first.bias, first.swapped, *zeros)
                layers[first.weight].length = 1 if first.convolution is None else first.s.shape[1]
            layer = layers[first.weight]
            counts = first.s.new_zeros(first.s.shape[:2], dtype=torch.bool)
            for factors in directions:
                s = _rows(factors.s)
                add_products(layer.slopes, s, s)
                counts |= factors.s.abs().amax(dim=2) != 0  # several times as fast as any()
            # Output gradients carry √w already. Inputs carry no weight, so each row is weighted, as copies would be.
            # Positions that the loss does not depend on (padding) count for nothing.
            row_weights = counts * weights.to(first.s)[:, None]
            added = selection.add(layer, first, row_weights, keys)
            positions[first.weight] = positions[first.weight] + added if first.weight in positions else added
        unfactored = unfactored or UnfactoredParameters(summed, parameter_names(layers))
        for captured in gradients:
            unfactored.add(captured)
    for name, total in positions.items():
        layers[name].positions = float(total)
    unfactored = unfactored or UnfactoredParameters(summed, parameter_names(layers))
    return FactorSums(layers, unfactored, torch.cat(norms).cpu().numpy() if norms else None)


class InputSelection:
    """The positions from which input factors are computed: all, or a few of a convolution that has very many.

    If label directions are drawn anyway, an input factor of width d is estimated from about `ROWS_PER_WIDTH` · d rows
    of all examples, spread evenly over each picture from an offset that its contents determine.

    Attributes:
        keys: those of the examples; None if all positions are taken.
    """

    def __init__(self, summed: SummedObjective, examples: Examples) -> None:
        self.keys = sample_keys(summed, examples) if expectation_of(summed).grouped else None
        self.examples = float(summed.copies.sum())

    def add(self, layer: FactoredLayer, factors: LayerFactors, weights: Tensor, keys: Keys | None) -> Tensor:
        """Add Σ w a aᵀ to the layer's factor for position weights (B, T); returns Σ w in float64."""
        total, convolution = weights.new_zeros((), dtype=torch.float64), factors.convolution
        positions, width = weights.shape[1], factors.width
        taken = max(1, ceil(ROWS_PER_WIDTH * width / self.examples))
        if convolution is not None and keys is not None and 2 * taken <= positions:
            offsets = torch.as_tensor((random_numbers(keys, 1, 0) % np.uint64(positions)).astype(np.int64))
            chosen = (offsets + torch.arange(taken) * positions // taken) % positions
            chosen = chosen.to(weights.device)
            a = patches_at(convolution.module, convolution.inputs, chosen)
            weights = weights.gather(1, chosen)
            add_products(layer.inputs, *_weighted_rows(a, weights, factors.bias is not None))
            return total + weights.sum(dtype=torch.float64)
        for part in blocks(len(weights), max(1, MAX_TEMPORARY_NUMBERS // (positions * width))):
            a = factors.take(part).a
            add_products(layer.inputs, *_weighted_rows(a, weights[part], factors.bias is not None))
        return total + weights.sum(dtype=torch.float64)


def _weighted_rows(a: Tensor, weights: Tensor, has_ones: bool) -> tuple[Tensor, Tensor]:
    """Rows (B·T, d) and the same times their weights."""
    rows = torch.cat([a, torch.ones_like(a[..., :1])], dim=-1) if has_ones else a
    rows = rows.reshape(-1, rows.shape[-1])
    return rows, rows * weights.reshape(-1, 1)


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

"""Linear algebra on blocks: k vectors at once as name → (k, *shape), with inner products in float64."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.gradients.matrices import flatten_each
from upweight.gradients.network import Network

Blocks = Mapping[str, Tensor]
MAX_FLOAT64_NUMBERS = 1 << 22  # numbers converted to float64 at a time


def column_count(blocks: Blocks) -> int:
    """The number of columns, k."""
    return len(next(iter(blocks.values())))


def inner_products(left: Blocks, right: Blocks) -> Tensor:
    """⟨leftⱼ, rightⱼ⟩ of every column, (k,) in float64: single precision would stall conjugate gradients."""
    first = next(iter(left.values()))
    total = first.new_zeros(len(first), dtype=torch.float64)
    width = max(1, MAX_FLOAT64_NUMBERS // max(1, len(first)))
    for name in left:
        pairs = zip(*(torch.split(flatten_each(side[name]), width, 1) for side in (left, right)), strict=True)
        for a, b in pairs:
            total += (a.double() * b.double()).sum(1)
    return total


def norms(blocks: Blocks) -> Tensor:
    """‖·‖ of every column, (k,) in float64."""
    return inner_products(blocks, blocks).sqrt()


def add_scaled(target: Blocks, scale: Tensor, blocks: Blocks) -> None:
    """target += scale · blocks in place, scale (k,)."""
    for name, block in target.items():
        block.add_(_column(scale, block) * blocks[name])


def scale_and_add(scale: Tensor, blocks: Blocks, added: Blocks) -> dict[str, Tensor]:
    """added + scale · blocks, scale (k,)."""
    return {name: added[name] + _column(scale, block) * block for name, block in blocks.items()}


def scale_columns(blocks: Blocks, scale: Tensor) -> dict[str, Tensor]:
    """scale · blocks, scale (k,)."""
    return {name: _column(scale, block) * block for name, block in blocks.items()}


def take_columns(blocks: Blocks, where: Any) -> dict[str, Tensor]:
    """Columns by a slice, a mask or positions."""
    return {name: block[where] for name, block in blocks.items()}


def stack_columns(parts: Iterable[Blocks]) -> dict[str, Tensor]:
    """Columns of several blocks, one after the other."""
    parts = list(parts)
    if len(parts) == 1:
        return dict(parts[0])
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def join_columns(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The same, in a part of the memory: the blocks are taken out of the parts as they are joined."""
    return (
        parts[0] if len(parts) == 1 else {name: torch.cat([part.pop(name) for part in parts]) for name in [*parts[0]]}
    )


def to_matrix(network: Network, blocks: Blocks) -> Tensor:
    """Blocks as one matrix (k, size), parameters in the network's order."""
    return torch.cat([flatten_each(blocks[name]) for name in network.names], dim=1)


def to_blocks(network: Network, matrix: Tensor) -> dict[str, Tensor]:
    """A matrix (k, size) as blocks in the network's precision."""
    sizes = [prod(network.shapes[name]) for name in network.names]
    parts = torch.split(matrix.to(network.precision), sizes, dim=1)
    return {name: part.reshape(-1, *network.shapes[name]) for name, part in zip(network.names, parts, strict=True)}


def standard_normal(network: Network, columns: int, generator: torch.Generator) -> Tensor:
    """A matrix (columns, size) of standard normal numbers, the same on every device."""
    drawn = torch.randn(columns, network.size, generator=generator, dtype=network.precision)
    return drawn.to(network.device)


def to_numpy(tensor: Tensor) -> NDArray[np.float64]:
    """A tensor as a float64 array."""
    return np.asarray(tensor.detach().cpu().double().numpy())


def _column(scale: Tensor, block: Tensor) -> Tensor:
    return scale.to(block.dtype).view(-1, *[1] * (block.ndim - 1))

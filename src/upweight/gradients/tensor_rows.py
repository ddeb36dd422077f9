"""Rows of a network that are stored as tensors, and the base class of all rows of a network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.rows import DenseRows, Rows
from upweight.gradients.matrices import flatten_each
from upweight.gradients.network import Network

Array = NDArray[np.float64]


class NetworkRows(Rows):
    """Rows over the parameters of one network, which can be materialised parameter by parameter."""

    network: Network

    @abstractmethod
    def materialise(self) -> TensorRows:
        """All rows as tensors."""


class TensorRows(NetworkRows):
    """Rows stored as tensors, parameter by parameter.

    Args:
        network: the network whose parameters they belong to.
        blocks: name → (k, *shape), for all of `network.names`.
    """

    def __init__(self, network: Network, blocks: Mapping[str, Tensor]) -> None:
        self.network = network
        self.blocks = {name: blocks[name] for name in network.names}

    @classmethod
    def of(cls, network: Network, rows: Rows) -> TensorRows:
        """Any rows as tensors (captured rows are materialised)."""
        if isinstance(rows, NetworkRows):
            return rows.materialise()
        return cls(network, network.split(rows.dense()))

    def __len__(self) -> int:
        return len(next(iter(self.blocks.values())))

    def materialise(self) -> TensorRows:
        """The rows themselves."""
        return self

    def dot(self, other: Rows) -> Array:
        """Inner products; captured rows are multiplied batch by batch, without being materialised."""
        if isinstance(other, NetworkRows) and not isinstance(other, TensorRows):
            return other.dot(self).T
        blocks = TensorRows.of(self.network, other).blocks
        products = sum(flatten_each(block) @ flatten_each(blocks[name]).T for name, block in self.blocks.items())
        return to_numpy(products)  # type: ignore[arg-type]

    def project(self, matrix: Array) -> Array:
        """`dense() @ matrix`."""
        return self.dot(DenseRows(np.asarray(matrix).T))

    def dense(self) -> Array:
        """(k, parameters)."""
        return self.network.join(self.blocks)

    def take(self, positions: NDArray[np.intp]) -> TensorRows:
        """The rows at these positions."""
        index = torch.as_tensor(np.asarray(positions), device=self.network.device)
        return TensorRows(self.network, {name: block[index] for name, block in self.blocks.items()})

    def sums(self, membership: Array) -> DenseRows:
        """`membership @ dense()`."""
        weights = torch.as_tensor(np.asarray(membership)).to(next(iter(self.blocks.values())))
        return DenseRows(
            self.network.join({name: torch.tensordot(weights, block, dims=1) for name, block in self.blocks.items()})
        )


def to_numpy(tensor: Tensor) -> Array:
    """The values of a tensor as a float64 array."""
    return np.asarray(tensor.detach().cpu().double().numpy())

"""Exact training gradients that are read from a store in place of passes over the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.gradient_terms import DenseTerm, GradientTerm, OuterTerm
from upweight.gradients.network import Network
from upweight.store.codes import factors_by_weight
from upweight.store.row_blocks import Numbers, Pairs
from upweight.store.stored_shards import Shard, StoredShards

ROWS_AT_A_TIME = 512


@final
class StoredGradients:
    """The gradients of training losses, without weights, from the shards of a store.

    Args:
        shards: the files.
        network: whose gradients they are.
        pilot: captured gradients of any example, which show how the layers keep their weights.
    """

    def __init__(self, shards: StoredShards, network: Network, pilot: CapturedBatch) -> None:
        self.shards, self.network, self.like = shards, network, pilot.like
        self.owners = pilot.owners
        self.swapped = {name: factors.swapped for name, factors in factors_by_weight(pilot).items()}

    def batches(self, positions: NDArray[np.intp], size: int | None = None) -> Iterator[tuple[slice, CapturedBatch]]:
        """(which of the positions, their gradients), at most `size` at a time."""
        for where, shard, inside in self.shards.parts(positions, size or ROWS_AT_A_TIME):
            yield where, self._batch(shard, inside, where.stop - where.start)

    def covers(self, network: Network) -> bool:
        """Whether this is the network, or the same net with some of its parameters held fixed."""
        shapes = self.network.shapes
        is_same = network.net is self.network.net and network.loss is self.network.loss
        return is_same and all(shapes.get(name) == shape for name, shape in network.shapes.items())

    def _batch(self, shard: Shard, inside: slice | NDArray[np.intp], count: int) -> CapturedBatch:
        shapes = self.network.shapes
        terms: dict[str, tuple[GradientTerm, ...]] = {}
        for name in self.shards.header.layouts:
            block = shard.block(name, inside)
            bias = self.owners.get(name, ("", None))[1]
            if isinstance(block, Pairs):
                s, a = self._tensor(block.left), self._tensor(block.right)
                if block.scale is not None:
                    s = s * self._tensor(block.scale)[:, :, None]
                left, right = (a, s) if self.swapped[name] else (s, a)
                if name in shapes:
                    terms[name] = (OuterTerm(left, right, shapes[name], self.swapped[name]),)
                if bias is not None and bias in shapes:
                    terms[bias] = (DenseTerm(s.sum(dim=1)),)
            elif isinstance(block, Numbers) and name in shapes:
                terms[name] = (DenseTerm(self._tensor(block.matrix()).reshape(count, *shapes[name])),)
        return CapturedBatch(count, terms, self.like, shapes, self.owners)

    def _tensor(self, values: NDArray[np.float32]) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values)).to(self.like)

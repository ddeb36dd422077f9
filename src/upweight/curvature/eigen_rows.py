"""EK-FAC solutions kept in the eigenbasis of each layer, into which training gradients are rotated for products.

Rotating m solutions of a layer back costs m·d_o·d_i·(d_o + d_i). Rotating n training gradients of rank one into the
basis costs n·(d_o² + d_i²), which is hundreds of times less for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.rows import DenseRows, Rows
from upweight.curvature.kfac import Blocks, FactoredLayer, with_ones
from upweight.curvature.solvers.algebra import to_numpy
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.gradient_terms import OuterTerm
from upweight.gradients.matrices import flatten_each
from upweight.gradients.network import Network
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]


@final
class EigenRows(Rows):
    """Rows stored by layer in its eigenbasis, and by parameter for parameters of no layer.

    Args:
        network: the network whose parameters the rows are about.
        layers: weight name → layer.
        joints: weight name → weight and bias (k, d_o, d_i [+ 1]) in the eigenbasis; scaled in place.
        blocks: the other parameters, name → (k, *shape).
        expected_rows: about how many rows these will be multiplied with.
    """

    def __init__(
        self, network: Network, layers: Mapping[str, FactoredLayer], joints: Blocks, blocks: Blocks, expected_rows: int
    ) -> None:
        self.network, self.layers, self.joints, self.blocks = network, layers, dict(joints), dict(blocks)
        self.expected_rows = expected_rows
        self._rotated_back: dict[str, Blocks] = {}
        self._sizes: Blocks = {}  # (k, 1, 1) by layer, factored out so that products of tiny numbers are not denormal
        for name, joint in joints.items():
            size = torch.linalg.vector_norm(joint, float("inf"), dim=(1, 2), keepdim=True)
            self._sizes[name] = torch.where(size > 0, size, 1.0)
            joint.div_(self._sizes[name])

    def __len__(self) -> int:
        return len(next(iter((self.joints or self.blocks).values())))

    def dot(self, other: Rows) -> Array:
        """Inner products; captured rows are rotated batch by batch if that is cheaper."""
        if not isinstance(other, CapturedRows):
            return self.tensors.dot(other)
        out = np.empty((len(self), len(other)))
        for where, batch in other.passes(ready=True):
            out[:, where] = to_numpy(self._dot_batch(batch)).T
            del batch  # so that memory need not hold it beside the next one
        if other.share is not None:
            common = TensorRows(self.network, {name: block[None] for name, block in other.share.items()})
            out += self._dot_vector(common.blocks)[:, None] * other.weights
        return out

    def project(self, matrix: Array) -> Array:
        """`dense() @ matrix`."""
        return self.tensors.project(matrix)

    def dense(self) -> Array:
        """(k, parameters)."""
        return self.tensors.dense()

    def take(self, positions: NDArray[np.intp]) -> EigenRows:
        """The rows at these positions."""
        where = torch.as_tensor(np.asarray(positions), device=self.network.device)
        joints = {name: joint[where] * self._sizes[name][where] for name, joint in self.joints.items()}
        blocks = {name: block[where] for name, block in self.blocks.items()}
        return EigenRows(self.network, self.layers, joints, blocks, self.expected_rows)

    def sums(self, membership: Array) -> DenseRows:
        """`membership @ dense()`."""
        return self.tensors.sums(membership)

    @property
    def tensors(self) -> TensorRows:
        """All rows in the parameters' own coordinates."""
        return TensorRows(self.network, self.blocks | self._rotate_back(self.joints))

    def _dot_batch(self, batch: CapturedBatch) -> Tensor:
        """Inner products with one batch, (B, k)."""
        out, remaining = batch.like.new_zeros(batch.count, len(self)), set(self.joints)
        for factors in batch.layers():
            joint, layer = self.joints.get(factors.weight), self.layers.get(factors.weight)
            if (
                joint is not None
                and layer is not None
                and factors.s.shape[1] == 1
                and self._is_cheaper_in_eigenbasis(joint)
            ):
                a, s = layer.rotate_inputs(with_ones(factors)), layer.rotate_slopes(factors.s)
                out += OuterTerm(s, a, tuple(joint.shape[1:])).dot_vectors(joint) * self._sizes[layer.weight].flatten()
                remaining.remove(layer.weight)
        for name in [name for name in self.joints if name in remaining]:  # for all batches that follow as well
            self.blocks |= self._in_own_coordinates(name)
            del self.joints[name]
        return out + batch.only(self.blocks).dot_vectors(self.blocks) if self.blocks else out

    def _rotate_back(self, weights: Iterable[str]) -> Blocks:
        """The parameters of these layers in their own coordinates, each computed once."""
        out: Blocks = {}
        for weight in weights:
            if weight not in self._rotated_back:
                self._rotated_back[weight] = self._in_own_coordinates(weight)
            out |= self._rotated_back[weight]
        return out

    def _in_own_coordinates(self, weight: str) -> Blocks:
        layer = self.layers[weight]
        joint = layer.rotate_back(self.joints[weight]).mul_(self._sizes[weight])
        blocks = layer.split(joint, self.network.shapes)
        return {name: block.contiguous() for name, block in blocks.items()}  # for products with many batches

    def _is_cheaper_in_eigenbasis(self, joint: Tensor) -> bool:
        _, d_o, d_i = joint.shape
        return self.expected_rows * (d_o**2 + d_i**2) < len(self) * d_o * d_i * (d_o + d_i)

    def _dot_vector(self, blocks: Mapping[str, Tensor]) -> Array:
        """Inner products with one vector, name → (1, *shape): (k,)."""
        out = sum((flatten_each(v) @ blocks[name].flatten() for name, v in self.blocks.items()), torch.zeros(len(self)))
        for name, joint in self.joints.items():
            layer = self.layers[name]
            out = out + joint.flatten(1) @ layer.rotate(layer.join(blocks)).flatten() * self._sizes[name].flatten()
        return to_numpy(out)

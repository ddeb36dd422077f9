"""Codes: from captured gradients to the numbers that a store keeps of each layer, and those of queries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.curvature.kfac import FactoredLayer, joint_gradients, with_ones
from upweight.curvature.unfactored_parameters import UnfactoredParameter
from upweight.gradients.captured_batch import CapturedBatch, LayerFactors
from upweight.gradients.gradient_terms import LookupTerm
from upweight.gradients.matrices import flatten_each
from upweight.store.encodings.encoding import Layout
from upweight.store.leading_pairs import as_floats, leading_lookups, leading_pairs, padded_pairs
from upweight.store.row_blocks import Lookups, Numbers, Pairs, RowBlock, times_sizes

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
SMALLEST_SIZE = 1e-2  # smallest typical size of a direction, over the largest one
SIZE_FLOOR = 0.1  # share of the mean square added to the squared sizes by which gradients are divided


class Code(ABC):
    """How the gradients of one layer, or of one parameter, become numbers of a row.

    Attributes:
        name: of the weight or of the parameter.
        layout: what a row keeps.
    """

    name: str
    layout: Layout

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of the parameters that it is about."""

    @abstractmethod
    def query(self, batch: CapturedBatch, factors: LayerFactors | None) -> RowBlock:
        """The gradients in the directions of the code, with nothing else lost."""

    @abstractmethod
    def vector(self, blocks: Mapping[str, Tensor]) -> Numbers:
        """Vectors of the parameters, name → (k, *shape), in the directions of the code."""

    @abstractmethod
    def leading_values(self, values: Tensor) -> Array:
        """The eigenvalues (or other values in the eigenbasis) of the directions of the code, (left, right)."""

    @property
    def rotated(self) -> tuple[bool, bool]:
        """Whether the directions of the left and of the right side are eigenvectors, not single numbers or words."""
        return False, False

    def row(self, batch: CapturedBatch, factors: LayerFactors | None) -> RowBlock:
        """The form in which a row holds the gradients, before it is quantised."""
        return self.query(batch, factors)

    def projected(self, block: RowBlock) -> RowBlock:
        """The numbers of queries that are multiplied with those of rows."""
        return block

    def restored(self, block: RowBlock) -> RowBlock:
        """A row that was read, in the coordinates of queries."""
        return block

    @property
    @abstractmethod
    def typical(self) -> tuple[Array, Array]:
        """Typical sizes of the numbers of both sides of a gradient, up to a factor."""


@final
@dataclass(frozen=True, eq=False)
class LayerCode(Code):
    """A factored layer, in the leading eigenvectors of its factors.

    Attributes:
        layer: with all eigenvectors.
        seed: of a sketch.
    """

    name: str
    layout: Layout
    layer: FactoredLayer
    seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Weight and bias."""
        return (self.name,) if self.layer.bias is None else (self.name, self.layer.bias)

    @property
    def rotated(self) -> tuple[bool, bool]:
        """Whether the eigenvectors of each side were computed."""
        return self.layer.left is not None, self.layer.right is not None

    @cached_property
    def _sides(self) -> tuple[Tensor, Tensor]:
        """For each side the leading eigenvectors (d, k), or their positions (k,) if it is not rotated."""
        bases = self.layer.left, self.layer.right
        left, right = (o if basis is None else basis[:, o] for basis, o in zip(bases, self._positions, strict=True))
        return left, right

    @cached_property
    def _positions(self) -> tuple[Tensor, Tensor]:
        values = self.layer.values
        order = (torch.argsort(values.sum(dim=axis), descending=True, stable=True) for axis in (1, 0))
        left, right = (o[:count] for o, count in zip(order, (self.layout.left, self.layout.right), strict=True))
        return left, right

    def leading_values(self, values: Tensor) -> Array:
        """The values of the leading directions, (left, right)."""
        left, right = self._positions
        return values[left][:, right].double().cpu().numpy()

    def query(self, batch: CapturedBatch, factors: LayerFactors | None) -> RowBlock:
        """Both factors of a gradient of one position, else their product."""
        if factors is not None and factors.s.shape[1] == 1:
            s, a = _along(factors.s, self._sides[0]), _along(with_ones(factors), self._sides[1])
            return Pairs(as_floats(s), as_floats(a))
        return Numbers(as_floats(self._joint(batch, factors).flatten(1)))

    def row(self, batch: CapturedBatch, factors: LayerFactors | None) -> RowBlock:
        """Compress as the layout says. Raises ValueError for several positions at a layer that had one before."""
        layout = self.layout
        if layout.form == "sketch":
            return self._sketched(self.query(batch, factors).matrix() / self._sizes)
        if layout.form == "lookups":
            return self._divided(self._lookups(batch))
        if layout.form == "numbers":
            return self._divided(Numbers(as_floats(self._joint(batch, factors).flatten(1))))
        if factors is not None and factors.s.shape[1] == 1:
            pair = self._divided(self.query(batch, factors))
            assert isinstance(pair, Pairs)
            return padded_pairs(pair, layout.rank)
        if not layout.several and factors is not None and factors.s.shape[1] > 1:
            raise ValueError(
                f"the layer of {self.name!r} has {factors.s.shape[1]} positions in some examples and one in the first "
                "examples; put a longer example first, or keep LoGra()"
            )
        return self._divided(padded_pairs(leading_pairs(self._joint(batch, factors), layout.rank), layout.rank))

    def vector(self, blocks: Mapping[str, Tensor]) -> Numbers:
        """Rotated on both sides."""
        return Numbers(as_floats(self._truncated(self.layer.join(blocks)).flatten(1)))

    def projected(self, block: RowBlock) -> RowBlock:
        """Times the typical sizes, by which rows were divided; of sketched rows random sums of that."""
        if self.layout.form == "sketch":
            return self._sketched(block.matrix() * self._sizes)
        return times_sizes(block, *self.typical)

    def restored(self, block: RowBlock) -> RowBlock:
        """A row that was read, in the coordinates of queries."""
        return times_sizes(block, *self.typical)

    def _divided(self, block: RowBlock) -> RowBlock:
        """Divided by the typical sizes, so that rounding is the same in all directions."""
        left, right = self.typical
        return times_sizes(block, 1.0 / left, 1.0 / right)

    def _sketched(self, matrix: Floats) -> Numbers:
        target, sign = self._buckets
        signed = torch.from_numpy(np.ascontiguousarray(matrix * sign))
        return Numbers(torch.zeros(len(matrix), self.layout.count).index_add_(1, target, signed).numpy())

    def _lookups(self, batch: CapturedBatch) -> Lookups:
        """The rows of a table that were looked up; of another kind of gradient those of the largest norm."""
        ids, vectors = looked_up(batch, self.name)
        place = torch.argsort(self._positions[0])  # of every row in the order of the code
        along = _along(vectors, self._sides[1])
        return leading_lookups(place[ids], along, self.layout.left, self.layout.rank)

    @cached_property
    def _sizes(self) -> Floats:
        """Typical sizes of the numbers in all directions, (left · right,), up to a factor."""
        squares = self.leading_values(self.layer.values)
        floor = SIZE_FLOOR * squares.mean()
        return np.sqrt(squares + (floor if floor > 0 else 1.0)).ravel().astype(np.float32)

    @cached_property
    def typical(self) -> tuple[Array, Array]:
        """Square roots of the eigenvalues of both sides, relative to the largest; none is below `SMALLEST_SIZE`."""
        values = self.leading_values(self.layer.values)
        sides = (values.mean(axis=axis) for axis in (1, 0))
        left, right = (np.sqrt(np.maximum(side / (side.max() or 1.0), SMALLEST_SIZE**2)) for side in sides)
        return left, right

    @cached_property
    def _buckets(self) -> tuple[Tensor, Floats]:
        """For every number the sum that it belongs to, and its sign; from the seed and the name of the layer."""
        generator = np.random.default_rng([self.seed, crc32(self.name.encode())])
        numbers = self.layout.left * self.layout.right
        target = torch.from_numpy(generator.integers(0, self.layout.count, numbers))
        return target, (2 * generator.integers(0, 2, numbers) - 1).astype(np.float32)

    def _joint(self, batch: CapturedBatch, factors: LayerFactors | None) -> Tensor:
        """(B, left, right) in the directions of the code."""
        if factors is None:
            return self._truncated(self.layer.join({name: batch.materialise(name) for name in self.names}))
        s, a = factors.s, factors.a
        left, right = (_multiplications(side) for side in self._sides)
        joined = s.shape[2] * a.shape[2]
        apart = s.shape[1] * (left + right + self.layout.left * self.layout.right)
        if apart < s.shape[1] * joined + s.shape[2] * right + self.layout.right * left:
            return _along(s, self._sides[0]).transpose(1, 2) @ _along(with_ones(factors), self._sides[1])
        return self._truncated(joint_gradients(factors, a))

    def _truncated(self, joint: Tensor) -> Tensor:
        joint = _along(joint, self._sides[1])
        return _along(joint.transpose(1, 2), self._sides[0]).transpose(1, 2)


@final
@dataclass(frozen=True, eq=False)
class ParameterCode(Code):
    """A parameter of no layer: its numbers of the largest eigenvalues."""

    name: str
    layout: Layout
    parameter: UnfactoredParameter

    @property
    def names(self) -> tuple[str, ...]:
        """The parameter."""
        return (self.name,)

    @property
    def typical(self) -> tuple[Array, Array]:
        """Ones."""
        return np.ones(self.layout.left), np.ones(1)

    @cached_property
    def _positions(self) -> Tensor:
        return torch.argsort(self.parameter.values.flatten(), descending=True, stable=True)[: self.layout.left]

    def leading_values(self, values: Tensor) -> Array:
        """The values of the leading numbers, (left, 1)."""
        return values.flatten()[self._positions].double().cpu().numpy()[:, None]

    def query(self, batch: CapturedBatch, factors: LayerFactors | None) -> RowBlock:
        """The rotated numbers."""
        return self.vector({self.name: batch.materialise(self.name)})

    def vector(self, blocks: Mapping[str, Tensor]) -> Numbers:
        """The rotated numbers."""
        return Numbers(as_floats(flatten_each(self.parameter.rotate(blocks[self.name]))[:, self._positions]))


def table_as_layer(name: str, table: UnfactoredParameter) -> FactoredLayer:
    """An embedding as a layer whose inputs are unit vectors: its rows are not rotated, its columns are."""
    layer = FactoredLayer(name, None, False, torch.empty(0, 0), torch.empty(0, 0))
    layer.values, layer.right = table.values, table.basis
    return layer


def factors_by_weight(batch: CapturedBatch) -> dict[str, LayerFactors]:
    """The factors of the layers of a batch whose gradients are outer products, by weight."""
    return {factors.weight: factors for factors in batch.layers()}


def lookups_of(batch: CapturedBatch, name: str) -> int | None:
    """How many rows of a table every example looks up; None if the gradient is not made of lookups."""
    lengths = [term.length if isinstance(term, LookupTerm) else None for term in batch.terms.get(name, ())]
    return None if not lengths or None in lengths else sum(length for length in lengths if length is not None)


def looked_up(batch: CapturedBatch, name: str) -> tuple[Tensor, Tensor]:
    """(ids (B, T), vectors (B, T, c)) of the gradients of a table; all of its rows if they are not lookups."""
    terms = [term for term in batch.terms.get(name, ()) if isinstance(term, LookupTerm)]
    if lookups_of(batch, name) is not None:
        return torch.cat([term.ids for term in terms], dim=1), torch.cat([term.right for term in terms], dim=1)
    whole = batch.materialise(name)
    return torch.arange(whole.shape[1], device=whole.device).expand(whole.shape[:2]), whole


def _along(vectors: Tensor, side: Tensor) -> Tensor:
    """Vectors (…, d) in these directions: eigenvectors (d, k), or positions (k,)."""
    return vectors[..., side] if side.ndim == 1 else vectors @ side


def _multiplications(side: Tensor) -> int:
    """That a vector takes to be turned into these directions."""
    return side.numel() if side.ndim == 2 else 0

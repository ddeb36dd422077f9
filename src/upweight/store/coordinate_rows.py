"""Rows in the coordinates of a store: gradients of queries in memory, and those of training examples on disk."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from upweight.core.rows import DenseRows, Rows, reciprocal_roots
from upweight.gradients.captured_rows import CapturedRows
from upweight.store.codes import Code, factors_by_weight
from upweight.store.factors import Factors
from upweight.store.row_blocks import Lookups, Numbers, Pairs, RowBlock, products
from upweight.store.stored_shards import StoredShards

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
ROWS_AT_A_TIME = 2048  # of a shard that are multiplied at once
DENSE_ROWS_AT_A_TIME = 64  # rows that are dense in memory at a time

Blocks = Mapping[str, RowBlock]


class CoordinateRows(Rows):
    """Rows whose numbers are in the directions of the codes of a store, name of the code → block."""

    codes: Sequence[Code]

    @abstractmethod
    def blocks(self) -> dict[str, RowBlock]:
        """All rows, in memory."""

    @abstractmethod
    def take(self, positions: NDArray[np.intp]) -> CoordinateRows:
        """The rows at these positions."""

    def project(self, matrix: Array) -> Array:
        """`dense() @ matrix`."""
        return np.asarray(self.dense() @ matrix)

    def sums(self, membership: Array) -> DenseRows:
        """`membership @ dense()`."""
        return DenseRows(membership @ self.dense())

    def squares(self) -> Array:
        """Squared norms, (n,)."""
        out = np.empty(len(self))
        for start in range(0, len(self), DENSE_ROWS_AT_A_TIME):
            positions = np.arange(start, min(start + DENSE_ROWS_AT_A_TIME, len(self)))
            dense = self.take(positions).dense()
            out[positions] = np.einsum("ij,ij->i", dense, dense)
        return out

    def normalised(self, by_layer: bool = False) -> Rows:
        """Every row, or each layer's part of it, divided by its norm. Raises ValueError `by_layer`."""
        if by_layer:
            raise ValueError('rows of a store are divided by their whole norm; use by="all", or ask without a store')
        return ScaledRows(self, reciprocal_roots(self.squares()))


@final
class QueryRows(CoordinateRows):
    """Rows in memory, block by block."""

    def __init__(self, codes: Sequence[Code], blocks: Blocks) -> None:
        self.codes, self._blocks = codes, dict(blocks)
        self._projected: dict[str, RowBlock] = {}

    def __len__(self) -> int:
        return len(next(iter(self._blocks.values())))

    def blocks(self) -> dict[str, RowBlock]:
        """The blocks."""
        return self._blocks

    def projected(self, code: Code) -> RowBlock:
        """The block that is multiplied with stored rows, computed once."""
        if code.name not in self._projected:
            self._projected[code.name] = code.projected(self._blocks[code.name])
        return self._projected[code.name]

    def dot(self, other: Rows) -> Array:
        """Inner products of all pairs."""
        if isinstance(other, CoordinateRows) and not isinstance(other, QueryRows):
            return other.dot(self).T
        if not isinstance(other, QueryRows):
            raise TypeError(f"expected rows of the same store, got {type(other).__name__}")
        out = np.zeros((len(self), len(other)), dtype=np.float32)
        for name, block in self._blocks.items():
            products(block, other.blocks()[name], out)
        return out.astype(np.float64)

    def dense(self) -> Array:
        """(n, numbers), multiplied out."""
        return np.concatenate([self._blocks[code.name].matrix() for code in self.codes], axis=1).astype(np.float64)

    def take(self, positions: NDArray[np.intp]) -> QueryRows:
        """The rows at these positions."""
        return QueryRows(self.codes, {name: block.take(positions) for name, block in self._blocks.items()})

    def times(self, factors: Mapping[str, Factors]) -> QueryRows:
        """Every row times these factors of each block."""
        return QueryRows(self.codes, {name: block.times(factors[name]) for name, block in self._blocks.items()})


@final
class LazyRows(CoordinateRows):
    """Gradients of examples, captured by a pass over the network when they are needed."""

    def __init__(self, codes: Sequence[Code], captured: CapturedRows) -> None:
        self.codes, self.captured = codes, captured

    def __len__(self) -> int:
        return len(self.captured)

    def capture(self) -> None:
        """Make the pass now."""
        _ = self.rows

    def blocks(self) -> dict[str, RowBlock]:
        """One pass over the examples."""
        return dict(self.rows.blocks())

    @cached_property
    def rows(self) -> QueryRows:
        """The rows in memory."""
        parts: dict[str, list[RowBlock]] = {code.name: [] for code in self.codes}
        for _, batch in self.captured.passes():
            factors = factors_by_weight(batch)
            for code in self.codes:
                parts[code.name].append(code.query(batch, factors.get(code.name)))
        return QueryRows(self.codes, {name: joined_blocks(blocks) for name, blocks in parts.items()})

    def narrowed(self, codes: Sequence[Code]) -> LazyRows:
        """The same rows in some of these codes, without another pass."""
        narrowed = LazyRows(codes, self.captured)
        narrowed.rows = QueryRows(codes, {code.name: self.rows.blocks()[code.name] for code in codes})
        return narrowed

    def dot(self, other: Rows) -> Array:
        """Inner products of all pairs."""
        return self.rows.dot(other.rows if isinstance(other, LazyRows) else other)

    def dense(self) -> Array:
        """(n, numbers)."""
        return self.rows.dense()

    def take(self, positions: NDArray[np.intp]) -> LazyRows:
        """The rows at these positions; nothing is captured."""
        taken = LazyRows(self.codes, self.captured.take(positions))
        if "rows" in vars(self):
            taken.rows = self.rows.take(positions)
        return taken


@final
class StoredRows(CoordinateRows):
    """Rows of training examples, read shard by shard: wᵢ (gᵢ + share).

    Args:
        shards: the files.
        codes: the codes to read; those of other modules are left out.
        weights: (n,) of the examples at `positions`.
        share: the regulariser's share of every row; None for nothing.
        positions: of the rows in the store.
    """

    def __init__(
        self,
        shards: StoredShards,
        codes: Sequence[Code],
        weights: Array,
        share: QueryRows | None,
        positions: NDArray[np.intp],
    ) -> None:
        self.shards, self.codes, self.weights, self.share, self.positions = shards, codes, weights, share, positions

    def __len__(self) -> int:
        return len(self.positions)

    def dot(self, other: Rows) -> Array:
        """Inner products with rows in memory, one part of a shard at a time."""
        if isinstance(other, LazyRows):
            other = other.rows
        if isinstance(other, StoredRows):
            return self.dot(other.in_memory())
        if not isinstance(other, QueryRows):
            return other.dot(self).T
        out = np.zeros((len(other), len(self)), dtype=np.float32)
        for where, shard, inside in self.shards.parts(self.positions, ROWS_AT_A_TIME):
            total = np.zeros((len(other), where.stop - where.start), dtype=np.float32)
            for code in self.codes:
                products(other.projected(code), shard.block(code.name, inside), total)
            out[:, where] = total
        if self.share is not None:
            out += other.dot(self.share).astype(np.float32)
        return (out * self.weights if (self.weights != 1).any() else out.astype(np.float64)).T

    def blocks(self) -> dict[str, RowBlock]:
        """All rows, in memory; for few of them. Raises TypeError for sketches, which are not coordinates."""
        sketches = [code.name for code in self.codes if code.layout.form == "sketch"]
        if sketches:
            raise TypeError(
                f"rows of the layer of {sketches[0]!r} are random sums, of which there are products with queries only: "
                "use Coordinates() for this method"
            )
        parts: dict[str, list[RowBlock]] = {code.name: [] for code in self.codes}
        for _, shard, inside in self.shards.parts(self.positions, ROWS_AT_A_TIME):
            for code in self.codes:
                parts[code.name].append(code.restored(shard.block(code.name, inside)))
        return {name: joined_blocks(blocks) for name, blocks in parts.items()}

    def in_memory(self) -> QueryRows:
        """The same rows with their weights and shares; for few of them."""
        weights = self.weights.astype(np.float32)
        if self.share is None:
            scaled: dict[str, RowBlock] = {}
            for name, block in self.blocks().items():
                by = weights if isinstance(block, Numbers) else weights[:, None]
                scale = by if block.scale is None else block.scale * by
                if isinstance(block, Numbers):
                    scaled[name] = Numbers(block.values, scale)
                elif isinstance(block, Lookups):
                    scaled[name] = replace(block, scale=np.broadcast_to(scale, block.ids.shape))
                else:
                    scaled[name] = Pairs(block.left, block.right, np.broadcast_to(scale, block.left.shape[:2]))
            return QueryRows(self.codes, scaled)
        shares = self.share.blocks()
        matrices = {name: block.matrix() + shares[name].matrix() for name, block in self.blocks().items()}
        return QueryRows(self.codes, {name: Numbers(matrix * weights[:, None]) for name, matrix in matrices.items()})

    def dense(self) -> Array:
        """(n, numbers), multiplied out."""
        return self.in_memory().dense()

    def take(self, positions: NDArray[np.intp]) -> StoredRows:
        """The rows at these positions; nothing is read."""
        where = self.positions[positions]
        return StoredRows(self.shards, self.codes, self.weights[positions], self.share, where)

    def normalised(self, by_layer: bool = False) -> Rows:
        """The gradients alone, without weights and shares, divided by their norms."""
        plain = StoredRows(self.shards, self.codes, np.ones(len(self)), None, self.positions)
        return CoordinateRows.normalised(plain, by_layer)


@final
class ScaledRows(Rows):
    """Rows of a store, each times a number."""

    def __init__(self, rows: CoordinateRows, factors: Array) -> None:
        self.rows, self.factors = rows, factors

    def __len__(self) -> int:
        return len(self.rows)

    def dot(self, other: Rows) -> Array:
        """Inner products of all pairs."""
        if isinstance(other, ScaledRows):
            return np.asarray(self.factors[:, None] * self.rows.dot(other.rows) * other.factors)
        return np.asarray(self.factors[:, None] * self.rows.dot(other))

    def project(self, matrix: Array) -> Array:
        """`dense() @ matrix`."""
        return np.asarray(self.dense() @ matrix)

    def dense(self) -> Array:
        """(n, numbers), multiplied out."""
        return np.asarray(self.factors[:, None] * self.rows.dense())

    def take(self, positions: NDArray[np.intp]) -> ScaledRows:
        """The rows at these positions."""
        return ScaledRows(self.rows.take(positions), self.factors[positions])

    def sums(self, membership: Array) -> DenseRows:
        """`membership @ dense()`."""
        return self.rows.sums(membership * self.factors)


def joined_blocks(blocks: Sequence[RowBlock]) -> RowBlock:
    """Blocks of consecutive rows as one; pairs are multiplied out if some of the rows are, or have factors."""
    if len(blocks) == 1:
        return blocks[0]
    lookups = [block for block in blocks if isinstance(block, Lookups)]
    if len(lookups) == len(blocks):
        ids, vectors = (np.concatenate(parts) for parts in zip(*((b.ids, b.vectors()) for b in lookups), strict=True))
        return Lookups(ids, vectors, None, lookups[0].table)
    pairs = [block for block in blocks if isinstance(block, Pairs) and block.factors is None]
    if len(pairs) < len(blocks) or len({pair.rank for pair in pairs}) > 1:
        return Numbers(np.concatenate([block.matrix() for block in blocks]))
    left, right = (np.concatenate([getattr(pair, side) for pair in pairs]) for side in ("left", "right"))
    scales = [pair.scale for pair in pairs if pair.scale is not None]
    return Pairs(left, right, np.concatenate(scales) if scales else None)

"""Rows of a network: per-example gradients as tensors, or captured anew whenever they are multiplied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples
from upweight.core.rows import DenseRows, Rows
from upweight.gradients.captured import Captured
from upweight.gradients.factors import Dense, Lookup, Outer, Part
from upweight.gradients.inner_products import ghostly
from upweight.gradients.inspection import Inspection, captured, inspected, pulled
from upweight.gradients.network import Network, Quantity

Array = NDArray[np.float64]
LARGEST = 512  # examples in a batch at most
BATCH = 1 << 23  # captured numbers of one batch: 32 MB in float32, the net's own activations come on top
HELD = 1 << 27  # captured numbers of the side that is held while the other streams past: 512 MB in float32
KEPT = 1 << 26  # of a whole set that stays where it is asked for, as long as its rows do
STREAMED = 1 << 24  # and of the other, gathered so that what is held is not read again for every few examples


class TensorRows(Rows):
    """Rows that exist, parameter by parameter.

    Args:
        network: whose parameters they belong to.
        blocks: name → (k, *shape), for all of `network.names`.
    """

    def __init__(self, network: Network, blocks: Mapping[str, Tensor]) -> None:
        self.network = network
        self.blocks = {name: blocks[name] for name in network.names}

    @classmethod
    def of(cls, network: Network, rows: Rows) -> TensorRows:
        """Any rows as tensors (captured ones are materialised)."""
        if isinstance(rows, TensorRows):
            return rows
        if isinstance(rows, CapturedRows):
            parts = [part.blocks for _, part in rows.tensors()]
            return cls(network, {name: torch.cat([part[name] for part in parts]) for name in network.names})
        return cls(network, network.split(rows.dense()))

    def __len__(self) -> int:
        return len(next(iter(self.blocks.values())))

    def dot(self, other: Rows) -> Array:
        """Inner products; captured rows are multiplied as they stream past."""
        if isinstance(other, CapturedRows):
            return other.dot(self).T
        theirs = TensorRows.of(self.network, other).blocks
        out = sum(block.flatten(1) @ theirs[name].flatten(1).T for name, block in self.blocks.items())
        return _numpy(out)  # type: ignore[arg-type]

    def project(self, matrix: Array) -> Array:
        """`dense() @ matrix`."""
        return self.dot(DenseRows(np.asarray(matrix).T))

    def dense(self) -> Array:
        """(k, parameters)."""
        return self.network.join(self.blocks)

    def take(self, positions: NDArray[np.intp]) -> TensorRows:
        """The rows at these positions."""
        where = torch.as_tensor(np.asarray(positions), device=self.network.device)
        return TensorRows(self.network, {name: block[where] for name, block in self.blocks.items()})

    def sums(self, member: Array) -> DenseRows:
        """`member @ dense()`."""
        weights = torch.as_tensor(np.asarray(member)).to(next(iter(self.blocks.values())))
        return DenseRows(
            self.network.join({name: torch.tensordot(weights, block, dims=1) for name, block in self.blocks.items()})
        )


class CapturedRows(Rows):
    """Row i = weightᵢ · (∇quantityᵢ + share), taken by a pass over the network whenever it is needed.

    Memory holds a batch of factors and, for products of two such sets, up to `HELD` numbers of one of them; never
    examples × parameters.

    Args:
        network: the network, left untouched.
        examples: whose gradients.
        quantity: "loss" or "measure".
        weights: (n,) numbers that rows are multiplied by; None for ones.
        share: name → shape, what is added to every row (the regulariser's share); None for nothing.
        slopes: (n, outputs) to pull back through the net's output in place of the quantity's own gradient; None for
            that.
    """

    def __init__(
        self,
        network: Network,
        examples: Examples,
        quantity: Quantity,
        weights: Array | None = None,
        share: Mapping[str, Tensor] | None = None,
        slopes: Array | None = None,
    ) -> None:
        self.network, self.examples, self.quantity, self.slopes = network, examples, quantity, slopes
        self.weights = np.ones(len(examples)) if weights is None else np.asarray(weights, dtype=np.float64)
        wide = network.precision
        self.share = None if share is None else {name: block.to(wide) for name, block in share.items()}
        self._totals = network.totals.get(examples) if self.of_loss else None
        self._places = np.arange(len(examples))
        self.keep = False  # whether held batches stay when they are all and few
        self._kept: Captured | None = None

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def of_loss(self) -> bool:
        """Whether these are gradients of the loss itself, up to weights and share."""
        return self.quantity == "loss" and self.slopes is None

    def passes(self, start: int = 0, size: int | None = None, ready: bool = False) -> Iterator[tuple[slice, Captured]]:
        """Batch after batch from position `start`: (which, weighted gradients without the share).

        `ready`: multiplied out where products of positions would cost more, for many products.
        """
        if ready and self._kept is not None and start < len(self):
            yield slice(start, len(self)), self._kept.take(slice(start, None))
            return
        found = inspected(self.network, self.quantity, self.examples)
        size = size or batch_size(found)
        for first in range(start, len(self), size):
            where = slice(first, min(first + size, len(self)))
            weights = torch.as_tensor(self.weights[where]).to(self.network.device, self.network.dtype)
            part = self.examples.take(np.arange(where.start, where.stop))
            if self.slopes is None:
                batch = captured(self.network, self.quantity, part, found, weights)
                batch = settled(batch) if ready else batch
                if self._totals is not None:
                    self._totals.add(self._places[where], self.weights[where], batch)
                yield where, batch
            else:
                cotangent = torch.as_tensor(self.slopes[where] * self.weights[where, None])
                yield where, pulled(self.network, part, found, cotangent)

    def held(self, limit: int = HELD) -> Iterator[tuple[slice, Captured]]:
        """Large batches for the side that is held: gradients materialised where that is the cheaper to multiply."""
        for where, batch in gathered(self.passes(ready=True), limit):
            if self.keep and where == slice(0, len(self)) and batch.floats * batch.count <= KEPT:
                self._kept = batch
            yield where, batch

    def dot(self, other: Rows) -> Array:
        """Inner products; two captured sets by ghost products or materialised blocks, layer by layer."""
        if not isinstance(other, CapturedRows):
            return self._dot_tensors(TensorRows.of(self.network, other).blocks)
        if other.network.shapes != self.network.shapes:
            raise ValueError("expected rows of the same network, got parameters of other names or shapes")
        if len(other) > len(self):
            return other.dot(self).T
        out = np.empty((len(self), len(other)))
        for there, theirs in other.held():
            for here, ours in gathered(self.passes(ready=True), STREAMED):
                out[here, there] = _numpy(ours.dot(theirs))
        return out if self.share is None is other.share else out + self._shares(other)

    def gram(self) -> Array:
        """`dense() @ dense().T` by half the products, (n, n)."""
        out = np.empty((len(self), len(self)))
        for there, theirs in self.held():
            out[there, there] = _numpy(theirs.gram())
            for here, ours in gathered(self.passes(there.stop, ready=True), STREAMED):
                out[here, there] = _numpy(ours.dot(theirs))
                out[there, here] = out[here, there].T
        return out if self.share is None else out + self._shares(self)

    def squares(self) -> Array:
        """Squared norms of the rows, (n,)."""
        out = np.empty(len(self))
        for where, batch in self.passes():
            out[where] = _numpy(batch.squares())
            if self.share is not None:
                common = TensorRows(self.network, {k: v[None] for k, v in self.share.items()})
                cross, weights = _numpy(batch.against(common.blocks))[:, 0], self.weights[where]
                out[where] += 2 * weights * cross + weights**2 * common.dot(common)[0, 0]
        return out

    def normalised(self, by_layer: bool = False) -> CapturedRows:
        """Directions of the gradients alone, without weights and share."""
        from upweight.gradients.directions import Directions

        return Directions(self.network, self.examples, self.quantity, by_layer)

    def project(self, matrix: Array) -> Array:
        """`dense() @ matrix`."""
        return self._dot_tensors(self.network.split(np.asarray(matrix).T))

    def dense(self) -> Array:
        """(n, parameters), materialised."""
        return np.concatenate([rows.dense() for _, rows in self.tensors()])

    def tensors(self) -> Iterator[tuple[slice, TensorRows]]:
        """Materialised batches, share included: (which, rows)."""
        for where, batch in self.passes():
            blocks = {name: batch.materialise(name) for name in self.network.names}
            if self.share is not None:
                weights = torch.as_tensor(self.weights[where]).to(batch.like)
                blocks = {
                    name: block + torch.tensordot(weights[:, None], self.share[name][None], dims=1)
                    for name, block in blocks.items()
                }
            yield where, TensorRows(self.network, blocks)

    def take(self, positions: NDArray[np.intp]) -> CapturedRows:
        """The rows at these positions; nothing is computed."""
        slopes = None if self.slopes is None else self.slopes[positions]
        examples, weights = self.examples.take(positions), self.weights[positions]
        taken = CapturedRows(self.network, examples, self.quantity, weights, self.share, slopes)
        taken._totals, taken._places = self._totals, self._places[positions]
        return taken

    def plain(self) -> CapturedRows:
        """The same rows without the share."""
        return CapturedRows(self.network, self.examples, self.quantity, self.weights, None, self.slopes)

    def sums(self, member: Array) -> DenseRows:
        """`member @ dense()`."""
        return DenseRows(self.total(member).dense())

    def total(self, member: Array) -> TensorRows:
        """`member @ dense()` as tensors, for member (groups, n)."""
        member = np.asarray(member, dtype=np.float64)
        totals: dict[str, Tensor] = {}
        for where, batch in self.passes():
            found = batch.sums(torch.as_tensor(member[:, where]).to(batch.like))
            totals = {name: totals[name] + block if totals else block for name, block in found.items()}
        if self.share is not None:
            each = torch.as_tensor(member @ self.weights)
            for name in totals:
                totals[name] += torch.tensordot(each.to(totals[name])[:, None], self.share[name][None], dims=1)
        return TensorRows(self.network, totals)

    def _dot_tensors(self, blocks: Mapping[str, Tensor]) -> Array:
        out = np.empty((len(self), len(next(iter(blocks.values())))))
        for where, batch in self.passes(ready=out.shape[1] > 1):
            out[where] = _numpy(batch.against(blocks))
        if self.share is not None:
            common = TensorRows(self.network, {name: block[None] for name, block in self.share.items()})
            out += np.outer(self.weights, common.dot(TensorRows(self.network, blocks))[0])
        return out

    def _shares(self, other: CapturedRows) -> Array:
        """What the shares of both sides add to the inner products."""
        out = np.zeros((len(self), len(other)))
        if self.share is not None:
            common = TensorRows(self.network, {name: block[None] for name, block in self.share.items()})
            out += np.outer(self.weights, other.dot(common)[:, 0])  # with the other's share, if it has one
        if other.share is not None:
            theirs = TensorRows(self.network, {name: block[None] for name, block in other.share.items()})
            out += np.outer(self.plain().dot(theirs)[:, 0], other.weights)
        return out


def batch_size(found: Inspection) -> int:
    """Examples per batch, by what one takes."""
    return int(min(LARGEST, max(1, BATCH // max(1, found.floats))))


def gathered(passes: Iterator[tuple[slice, Captured]], limit: int) -> Iterator[tuple[slice, Captured]]:
    """Consecutive batches as fewer of at most `limit` numbers: (which rows, as factors)."""
    batches: list[Captured] = []
    here, numbers = slice(0, 0), 0
    for where, batch in passes:
        if batches and numbers + batch.floats * batch.count > limit:
            yield here, Captured.joined(batches)
            batches, numbers = [], 0
        here = slice(here.start if batches else where.start, where.stop)
        batches.append(batch)
        numbers += batch.floats * batch.count
    if batches:
        yield here, Captured.joined(batches)


def settled(batch: Captured) -> Captured:
    """The same gradients, multiplied out where products of positions would cost more."""

    def one(part: Part) -> Part:
        few_rows = isinstance(part, Lookup) and part.shape[0] <= part.length
        dense = few_rows or (isinstance(part, Outer) and not ghostly(part, part.length))
        return Dense(part.materialise()) if dense else part

    parts = {name: tuple(one(part) for part in uses) for name, uses in batch.parts.items()}
    return Captured(batch.count, parts, batch.like, batch.shapes, batch.owners)


def _numpy(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().double().numpy())

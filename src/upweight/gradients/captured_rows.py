"""Per-example gradients that are not stored: passes over the network capture them again for every product."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.blocks import blocks as consecutive
from upweight.core.examples import Examples
from upweight.core.forecast import watched_slices
from upweight.core.rows import DensePart, DenseRows, Rows
from upweight.gradients.capture import Observer, backpropagate, capture
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.captured_source import CapturedSource
from upweight.gradients.dense_parts import dense_parts
from upweight.gradients.double_precision import doubled_if_possible
from upweight.gradients.gradient_totals import collecting_totals
from upweight.gradients.held_numbers import MAX_CACHED_NUMBERS, MAX_HELD_NUMBERS, held_numbers, streamed_numbers
from upweight.gradients.inspection import MAX_BATCH_EXAMPLES, inspect
from upweight.gradients.merged_batches import merge_batches
from upweight.gradients.network import Network, Quantity
from upweight.gradients.tensor_rows import NetworkRows, TensorRows, to_numpy

Array = NDArray[np.float64]
Normalisation = Literal["gradient", "layer"]


class CapturedRows(NetworkRows):
    """Row i = weightᵢ · (∇quantityᵢ + share), computed by a pass over the network whenever it is needed.

    Memory holds one batch of captured factors and, for products of two such sets, up to `max_held_numbers` of one of
    them; never examples × parameters.

    Args:
        network: the network, which is left unchanged.
        examples: the examples whose gradients these are.
        quantity: "loss" or "measure".
        weights: (n,) multipliers of the rows; None for ones.
        share: name → shape, added to every gradient (the regulariser's share); None for nothing.
        slopes: (n, outputs), backpropagated from the net's output instead of the quantity's gradient there; None for
            the quantity's own gradient.
        normalisation: "gradient" divides every weighted gradient by its norm, "layer" each layer's part of it by the
            norm of that part; a zero gradient stays zero. The share is added afterwards.

    Attributes:
        max_batch_examples: at most this many examples per pass over the network.
        max_held_numbers: captured numbers of the side of a product that is held while the other streams past.
    """

    def __init__(
        self,
        network: Network,
        examples: Examples,
        quantity: Quantity,
        weights: Array | None = None,
        share: Mapping[str, Tensor] | None = None,
        slopes: Array | None = None,
        normalisation: Normalisation | None = None,
    ) -> None:
        self.network, self.examples, self.quantity, self.slopes = network, examples, quantity, slopes
        self.normalisation = normalisation
        self.max_batch_examples, self.max_held_numbers, self._cache_limit = MAX_BATCH_EXAMPLES, MAX_HELD_NUMBERS, 0
        self.weights = np.ones(len(examples)) if weights is None else np.asarray(weights, dtype=np.float64)
        self.share = None if share is None else {name: block.to(network.precision) for name, block in share.items()}
        self._totals = collecting_totals(network, examples) if quantity == "loss" and slopes is None else None
        self._whole = examples  # of which these are a part
        self._positions = np.arange(len(examples))  # among the whole
        self._cache: CapturedBatch | None = None
        self._source: CapturedSource | None = None
        self._observe: Observer | None = None
        self._stored_positions = self._positions

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def origin(self) -> tuple[Examples, NDArray[np.intp]]:
        """The examples of the rows that these were taken from, and the positions of these there."""
        return self._whole, self._positions

    @property
    def is_stored(self) -> bool:
        """Whether gradients are read from where they are kept, instead of captured."""
        return self._source is not None

    @property
    def of_loss(self) -> bool:
        """Whether these are gradients of the loss itself, up to weights and share."""
        return self.quantity == "loss" and self.slopes is None and self.normalisation is None

    def passes(
        self, start: int = 0, size: int | None = None, ready: bool = False
    ) -> Iterator[tuple[slice, CapturedBatch]]:
        """Batch after batch from position `start`: (which positions, weighted gradients without the share).

        `ready` materialises gradients whose products would cost more as factors; use it if a batch is multiplied often.
        """
        if ready and self._cache is not None and start < len(self):
            yield slice(start, len(self)), self._cache.take(slice(start, None))
            return
        if self._source is not None:
            yield from self._read(self._source, start, size, ready)
            return
        inspection = inspect(self.network, self.quantity, self.examples)
        batches = consecutive(len(self), size or min(self.max_batch_examples, inspection.batch_size), start)
        for where in watched_slices(batches, "gradients of examples", len(self)):
            weights = torch.as_tensor(self.weights[where]).to(self.network.device, self.network.precision)
            part = self.examples.take(np.arange(where.start, where.stop))
            if self.slopes is None:
                batch = capture(self.network, self.quantity, part, inspection, weights, self._observe)
                batch = batch.prepare() if ready else batch
                if self._totals is not None:
                    self._totals.add(self._positions[where], self.weights[where], batch)
            else:
                cotangent = torch.as_tensor(self.slopes[where] * self.weights[where, None])
                batch = backpropagate(self.network, part, inspection, cotangent)
            yield where, batch if self.normalisation is None else batch.normalised(self.normalisation == "layer")
            del batch  # so that memory need not hold it beside the next one

    def read_from(self, source: CapturedSource) -> CapturedRows:
        """The same rows of a training set, whose gradients are read instead of captured."""
        rows = copy(self)
        rows._source = source
        return rows

    def observed(self, observe: Observer) -> CapturedRows:
        """The same rows; passes over the network show every batch of values and outputs as well."""
        rows = copy(self)
        rows._observe = observe
        return rows

    def _read(
        self, source: CapturedSource, start: int, size: int | None, ready: bool
    ) -> Iterator[tuple[slice, CapturedBatch]]:
        for part, batch in source.batches(self._stored_positions[start:], size):
            where = slice(part.start + start, part.stop + start)
            weights = torch.as_tensor(self.weights[where]).to(batch.like)
            own = batch.only(self.network.names)
            weighted = own.scaled(dict.fromkeys(own.terms, weights))
            weighted = weighted.prepare() if ready else weighted
            if self._totals is not None:
                self._totals.add(self._positions[where], self.weights[where], weighted)
            yield where, weighted

    def cached(self, limit: int = MAX_CACHED_NUMBERS) -> CapturedRows:
        """The same rows, which keep their captured gradients in memory if all of them fit into `limit` numbers."""
        rows = copy(self)
        rows._cache, rows._cache_limit = None, limit
        return rows

    def held_batches(self, most: int | None = None) -> Iterator[tuple[slice, CapturedBatch]]:
        """Batches of up to `most` numbers (`max_held_numbers`) for the side of a product that is held, prepared."""
        limit = held_numbers(self.max_held_numbers if most is None else most)
        for where, batch in merge_batches(self.passes(ready=True), limit, len(self)):
            if where == slice(0, len(self)) and batch.floats * batch.count <= held_numbers(self._cache_limit):
                self._cache = batch
            yield where, batch
            del batch  # before the next one is made

    def streamed_batches(self, start: int = 0) -> Iterator[tuple[slice, CapturedBatch]]:
        """Batches for the side of a product that streams past, prepared."""
        return merge_batches(self.passes(start, ready=True), streamed_numbers(), len(self) - start)

    def dot(self, other: Rows) -> Array:
        """Inner products; of two captured sets by ghost products or materialised gradients, layer by layer."""
        if not isinstance(other, CapturedRows):
            return self._dot_tensors(TensorRows.of(self.network, other).blocks)
        if other.network.shapes != self.network.shapes:
            raise ValueError("expected rows of the same network, got parameters of other names or shapes")
        if len(other) > len(self):
            return other.dot(self).T
        out = np.empty((len(self), len(other)))
        for columns, right in other.held_batches():
            for rows, left in self.streamed_batches():
                out[rows, columns] = to_numpy(left.dot(right))
                del left
            del right
        return out if self.share is None is other.share else out + self._shares(other)

    def gram(self) -> Array:
        """`dense() @ dense().T`, (n, n), with half of its products."""
        out = np.empty((len(self), len(self)))
        for columns, right in self.held_batches():
            out[columns, columns] = to_numpy(right.gram())
            for rows, left in self.streamed_batches(columns.stop):
                out[rows, columns] = to_numpy(left.dot(right))
                out[columns, rows] = out[rows, columns].T
                del left
            del right
        return out if self.share is None else out + self._shares(self)

    def squares(self) -> Array:
        """Squared norms of the rows, (n,)."""
        out = np.empty(len(self))
        for where, batch in self.passes():
            out[where] = to_numpy(batch.squares())
            if self.share is not None:
                common = TensorRows(self.network, {k: v[None] for k, v in self.share.items()})
                cross, weights = to_numpy(batch.dot_vectors(common.blocks))[:, 0], self.weights[where]
                out[where] += 2 * weights * cross + weights**2 * common.dot(common)[0, 0]
        return out

    def normalised(self, by_layer: bool = False) -> CapturedRows:
        """The gradients alone, without weights and share, divided by their norms: as a whole, or layer by layer.

        They are computed in double precision if the net can be: in single precision, the direction of the gradient of
        an example that the net fits almost exactly is rounding.
        """
        normalisation: Normalisation = "layer" if by_layer else "gradient"
        network = doubled_if_possible(self.network, self.quantity, self.examples)
        return CapturedRows(network, self.examples, self.quantity, slopes=self.slopes, normalisation=normalisation)

    def project(self, matrix: Array) -> Array:
        """`dense() @ matrix`."""
        return self._dot_tensors(self.network.split(np.asarray(matrix).T))

    def dense_parts(self, columns: Sequence[slice]) -> Iterator[DensePart]:
        """Parts of `dense()`, for as many rows at a time as have room as factors."""
        share = None if self.share is None else self.network.join({n: b[None] for n, b in self.share.items()})[0]
        for part, some, dense in dense_parts(self.passes(), len(self), self.network.shapes, columns):
            yield part, some, dense if share is None else dense + np.outer(self.weights[part], share[some])

    def dense(self) -> Array:
        """(n, parameters), materialised."""
        return np.concatenate([rows.dense() for _, rows in self.tensors()])

    def materialise(self) -> TensorRows:
        """All rows as tensors."""
        parts, names = [part.blocks for _, part in self.tensors()], self.network.names
        return TensorRows(self.network, {name: torch.cat([part[name] for part in parts]) for name in names})

    def tensors(self) -> Iterator[tuple[slice, TensorRows]]:
        """Materialised batches, share included: (which positions, rows)."""
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
        selection = CapturedRows(self.network, examples, self.quantity, weights, self.share, slopes, self.normalisation)
        selection._totals, selection._whole = self._totals, self._whole
        selection._positions = self._positions[positions]
        selection._source, selection._stored_positions = self._source, self._stored_positions[positions]
        return selection

    def plain(self) -> CapturedRows:
        """The same rows without their shares of the regulariser."""
        given = self.network, self.examples, self.quantity, self.weights
        return CapturedRows(*given, slopes=self.slopes, normalisation=self.normalisation)

    def sums(self, membership: Array) -> DenseRows:
        """`membership @ dense()`."""
        return DenseRows(self.total(membership).dense())

    def total(self, membership: Array) -> TensorRows:
        """`membership @ dense()` as tensors, for membership (groups, n)."""
        membership = np.asarray(membership, dtype=np.float64)
        totals: dict[str, Tensor] = {}
        for where, batch in self.passes():
            sums = batch.sums(torch.as_tensor(membership[:, where]).to(batch.like))
            totals = {name: totals[name] + block if totals else block for name, block in sums.items()}
        if self.share is not None:
            weights = torch.as_tensor(membership @ self.weights)
            for name in totals:
                totals[name] += torch.tensordot(weights.to(totals[name])[:, None], self.share[name][None], dims=1)
        return TensorRows(self.network, totals)

    def _dot_tensors(self, blocks: Mapping[str, Tensor]) -> Array:
        out = np.empty((len(self), len(next(iter(blocks.values())))))
        for where, batch in self.passes(ready=out.shape[1] > 1):
            out[where] = to_numpy(batch.dot_vectors(blocks))
        if self.share is not None:
            common = TensorRows(self.network, {name: block[None] for name, block in self.share.items()})
            out += np.outer(self.weights, common.dot(TensorRows(self.network, blocks))[0])
        return out

    def _shares(self, other: CapturedRows) -> Array:
        """The contribution of both regulariser shares to the inner products."""
        out = np.zeros((len(self), len(other)))
        if self.share is not None:
            common = TensorRows(self.network, {name: block[None] for name, block in self.share.items()})
            out += np.outer(self.weights, other.dot(common)[:, 0])  # includes the share of the other side
        if other.share is not None:
            common = TensorRows(self.network, {name: block[None] for name, block in other.share.items()})
            out += np.outer(self.plain().dot(common)[:, 0], other.weights)
        return out

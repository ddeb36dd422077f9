"""Roots: rows Φ with ΦᵀΦ = the Gauss–Newton matrix, a few per example, captured as factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.rows import Rows
from upweight.curvature.operators import GaussNewtonOperator
from upweight.curvature.solvers.algebra import to_matrix
from upweight.gradients.captured_batch import CapturedBatch, merge_batches
from upweight.gradients.captured_rows import MAX_CACHED_NUMBERS, MAX_HELD_NUMBERS, MAX_STREAMED_NUMBERS, CapturedRows
from upweight.gradients.inspection import backpropagate, inspect
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]
TRACE_SHARE = 0.998  # share of Σ tr(wᵢΛᵢ) that the kept directions hold
MAX_HESSIAN_NUMBERS = 1 << 27  # numbers that the output Hessians may take on the way there: 1 GB
MAX_BATCH_EXAMPLES = 512  # examples whose output Hessians are decomposed at a time


@final
class Roots:
    """φ = √μ Jᵢᵀ u for the eigenpairs (μ, u) of the output Hessians wᵢΛᵢ that hold 99.8 % of their trace.

    A trained net is sure of most examples, so that few directions of few examples carry the curvature.

    Args:
        operator: the Gauss–Newton matrix; its outputs have C numbers each, and n·C² numbers are held for a moment.
        share: of the trace, that the kept directions hold; None for `TRACE_SHARE`.

    Attributes:
        convex: no output Hessian has an eigenvalue below zero by more than rounding.
        positions: example of every row, (N,); rows with the same rank among their example's directions are together.
        cotangents: √μ u of every row, (N, C).
    """

    def __init__(self, operator: GaussNewtonOperator, share: float | None = None) -> None:
        self.operator, self.network = operator, operator.network
        values, vectors = self._spectra()
        self.convex = bool(-values.min() <= 100 * torch.finfo(self.network.precision).eps * values.max())
        values = values.clip(min=0.0)
        where, rank = _strongest(values, operator.summed.copies, TRACE_SHARE if share is None else share)
        self.positions: NDArray[np.intp] = where
        self.cotangents = vectors[where, :, rank] * np.sqrt(values[where, rank])[:, None]
        self._starts = np.flatnonzero(np.diff(rank, prepend=-1))  # where another rank begins
        self._kept: CapturedBatch | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def passes(self, start: int = 0) -> Iterator[tuple[slice, CapturedBatch]]:
        """Batch after batch from row `start`: (which rows, ready for products)."""
        train = self.operator.summed.train
        found = inspect(self.network, "loss", train)
        size = found.batch_size
        bounds = [*self._starts.tolist(), len(self)]
        first = start
        while first < len(self):
            stop = min(first + size, next(b for b in bounds if b > first))  # an example once per batch
            where = slice(first, stop)
            part = train.take(self.positions[where])
            yield where, backpropagate(self.network, part, found, torch.as_tensor(self.cotangents[where])).prepare()
            first = stop

    def held(self) -> Iterator[tuple[slice, CapturedBatch]]:
        """Large batches to multiply others with; all in one, and kept, where they fit."""
        if self._kept is not None:
            yield slice(0, len(self)), self._kept
            return
        for where, batch in merge_batches(self.passes(), MAX_HELD_NUMBERS):
            if where == slice(0, len(self)) and batch.floats * batch.count <= MAX_CACHED_NUMBERS:
                self._kept = batch
            yield where, batch

    def gram(self) -> Tensor:
        """ΦΦᵀ, (N, N) in the net's precision, by ghost products."""
        out = torch.empty(len(self), len(self), dtype=self.network.precision, device=self.network.device)
        for there, theirs in self.held():
            out[there, there] = theirs.gram()
            for here, ours in merge_batches(self.passes(there.stop), MAX_STREAMED_NUMBERS):
                out[here, there] = ours.dot(theirs)
                out[there, here] = out[here, there].T
        return out

    def dot(self, rows: Rows) -> Array:
        """Φ rowsᵀ, (N, len(rows)); captured rows stay factors."""
        if not isinstance(rows, CapturedRows):
            return self._against(TensorRows.of(self.network, rows).blocks)
        out = np.empty((len(self), len(rows)))
        for there, theirs in self.held():
            for here, ours in merge_batches(rows.passes(ready=True), MAX_STREAMED_NUMBERS):
                out[there, here] = _numpy(theirs.dot(ours))
        return out + self.shares(rows)

    def shares(self, rows: CapturedRows) -> Array | float:
        """What the regulariser's share of the rows adds to Φ rowsᵀ."""
        if rows.share is None:
            return 0.0
        return np.outer(self._against({name: block[None] for name, block in rows.share.items()}), rows.weights)

    def sums(self, member: Array) -> dict[str, Tensor]:
        """member Φ for member (g, N): name → (g, *shape)."""
        total: dict[str, Tensor] = {}
        for where, batch in self.passes():
            found = batch.sums(torch.as_tensor(member[:, where]).to(batch.like))
            total = {name: total[name] + block if total else block for name, block in found.items()}
        return total

    def squared(self) -> Tensor:
        """ΦᵀΦ, (parameters, parameters) in float64."""
        size = self.operator.size
        total = torch.zeros(size, size, dtype=torch.float64, device=self.network.device)
        for _, batch in self.passes():
            rows = to_matrix(self.network, {name: batch.materialise(name) for name in self.network.names}).double()
            total.addmm_(rows.T, rows)
        return total

    def _against(self, blocks: Mapping[str, Tensor]) -> Array:
        return np.concatenate([_numpy(batch.dot_vectors(blocks)) for _, batch in self.held()])

    def _spectra(self) -> tuple[Array, Array]:
        """Eigenvalues (n, C) of wᵢΛᵢ and eigenvectors (n, C, C)."""
        summed = self.operator.summed
        values, vectors = [], []
        for start in range(0, len(summed.train), MAX_BATCH_EXAMPLES):
            part = summed.train.take(np.arange(start, min(start + MAX_BATCH_EXAMPLES, len(summed.train))))
            with self.network.preserved():
                hessians = self.operator.outputs(self.network.batch(part), part).hessians()
            found = torch.linalg.eigh(hessians.double())
            values.append(_numpy(found.eigenvalues))
            vectors.append(_numpy(found.eigenvectors))
        return np.concatenate(values) * summed.weights[:, None], np.concatenate(vectors)


def _strongest(values: Array, copies: Array, share: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(example, column) of the largest eigenvalues that hold this share of the sum, ordered by rank, then example.

    Of an example that counts for several copies they are as large as those of one copy.
    """
    order = np.argsort(values / np.where(copies > 0, copies, 1.0)[:, None], axis=None)[::-1]
    running = np.cumsum(values.ravel()[order])
    last = int(np.searchsorted(running, share * running[-1])) + 1 if running[-1] > 0 else 1
    where, column = np.unravel_index(order[:last], values.shape)
    sort = np.lexsort((where, -column))  # eigenvalues ascend, so the strongest direction is the last column
    return where[sort], column[sort]


def _numpy(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().double().numpy())

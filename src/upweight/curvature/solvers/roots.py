"""Roots of the Gauss–Newton matrix: rows Φ with ΦᵀΦ = G, a few per example, captured as factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.rows import Rows
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.operators import GaussNewtonOperator
from upweight.curvature.solvers.algebra import to_matrix, to_numpy
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.capture import backpropagate
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.held_numbers import MAX_CACHED_NUMBERS, held_numbers, streamed_numbers
from upweight.gradients.inspection import inspect
from upweight.gradients.merged_batches import merge_batches
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]
COUNTED_EXAMPLES = 128, 512  # whose rows are counted to foresee those of all: more if there are nearly too many
CLOSE_TO_LIMIT = 1.5  # times as many rows as the dual form may have, or a part of it
MAX_BATCH_EXAMPLES = 512  # examples whose output Hessians are decomposed at a time


@final
class Roots:
    """φ = √μ Jᵢᵀ u for the strongest eigenpairs (μ, u) of the output Hessians wᵢΛᵢ.

    A trained net is sure of most examples, so that few directions of few examples carry the curvature.

    Args:
        operator: the Gauss–Newton matrix. Its outputs have C numbers each, and n·C² numbers are held temporarily.
        share: share of the trace Σ tr(wᵢΛᵢ) that these eigenpairs hold.

    Attributes:
        convex: True if no output Hessian has an eigenvalue below zero by more than rounding.
        positions: the example of every row, (N,). Rows are ordered by their rank among their example's directions.
        cotangents: √μ u of every row, (N, C).
    """

    def __init__(self, operator: GaussNewtonOperator, share: float, saved: SavedState = NOTHING_SAVED) -> None:
        self.operator, self.network, self.share = operator, operator.network, share
        self._cached: CapturedBatch | None = None
        if saved:
            self.positions: NDArray[np.intp] = saved.array("positions", (None,), "i")
            self.cotangents = saved.array("cotangents", (len(self.positions), None))
            self._starts = saved.array("starts", (None,), "i")
            self.convex = bool(saved.facts["convex"])
            return
        values, vectors = self._spectra()
        self.convex = bool(-values.min() <= 100 * torch.finfo(self.network.precision).eps * values.max())
        values = values.clip(min=0.0)
        where, rank = _strongest(values, operator.summed.copies, share)
        self.positions = where
        self.cotangents = vectors[where, :, rank] * np.sqrt(values[where, rank])[:, None]
        self._starts = np.flatnonzero(np.diff(rank, prepend=-1))  # where the next rank begins

    def state(self) -> SavedState:
        """Positions, cotangents and where the ranks begin."""
        arrays = {"positions": self.positions, "cotangents": self.cotangents, "starts": self._starts}
        return SavedState(arrays, {"convex": self.convex})

    def __len__(self) -> int:
        return len(self.positions)

    def passes(self, start: int = 0) -> Iterator[tuple[slice, CapturedBatch]]:
        """Batches from row `start` on: (which rows, gradients ready for products)."""
        train, wide = self.operator.summed.train, self.operator.wide
        inspection = inspect(wide, "loss", train)
        size = inspection.batch_size
        bounds = [*self._starts.tolist(), len(self)]
        first = start
        while first < len(self):
            stop = min(first + size, next(b for b in bounds if b > first))  # a batch has an example at most once
            where = slice(first, stop)
            part = train.take(self.positions[where])
            cotangents = torch.as_tensor(self.cotangents[where])
            yield where, backpropagate(wide, part, inspection, cotangents).prepare()
            first = stop

    def held_batches(self) -> Iterator[tuple[slice, CapturedBatch]]:
        """Large batches for products with other rows; a single one that is cached if everything fits."""
        if self._cached is not None:
            yield slice(0, len(self)), self._cached
            return
        for where, batch in merge_batches(
            self.passes(), held_numbers(self.operator.summed.limits.held_numbers), len(self)
        ):
            if where == slice(0, len(self)) and batch.floats * batch.count <= MAX_CACHED_NUMBERS:
                self._cached = batch
            yield where, batch
            del batch  # which may be most of the memory, before the next one is made

    def gram(self) -> Tensor:
        """ΦΦᵀ, (N, N) in the net's precision, by ghost products."""
        out = torch.empty(len(self), len(self), dtype=self.network.precision, device=self.network.device)
        for columns, held in self.held_batches():
            out[columns, columns] = held.gram()
            for rows, streamed in merge_batches(
                self.passes(columns.stop), streamed_numbers(), len(self) - columns.stop
            ):
                out[rows, columns] = streamed.dot(held)
                out[columns, rows] = out[rows, columns].T
                del streamed
            del held
        return out

    def dot(self, rows: Rows) -> Array:
        """Φ rowsᵀ, (N, len(rows)); captured rows are not materialised."""
        if not isinstance(rows, CapturedRows):
            return self._dot_vectors(TensorRows.of(self.network, rows).blocks)
        out = np.empty((len(self), len(rows)))
        for where, held in self.held_batches():
            for columns, streamed in rows.streamed_batches():
                out[where, columns] = to_numpy(held.dot(streamed))
                del streamed
            del held
        out += self.share_products(rows)
        return out

    def share_products(self, rows: CapturedRows) -> Array | float:
        """The part of Φ rowsᵀ that comes from the regulariser's share of the rows."""
        if rows.share is None:
            return 0.0
        return np.outer(self._dot_vectors({name: block[None] for name, block in rows.share.items()}), rows.weights)

    def sums(self, membership: Array) -> dict[str, Tensor]:
        """membership Φ for membership (g, N): name → (g, *shape)."""
        total: dict[str, Tensor] = {}
        for where, batch in self.passes():
            sums = batch.sums(torch.as_tensor(membership[:, where]).to(batch.like))
            total = {name: total[name] + block if total else block for name, block in sums.items()}
        return total

    def squared(self) -> Tensor:
        """ΦᵀΦ, (parameters, parameters) in float64."""
        size = self.operator.size
        total = torch.zeros(size, size, dtype=torch.float64, device=self.network.device)
        for _, batch in self.passes():
            rows = to_matrix(self.network, {name: batch.materialise(name) for name in self.network.names}).double()
            total.addmm_(rows.T, rows)
        return total

    def _dot_vectors(self, blocks: Mapping[str, Tensor]) -> Array:
        return np.concatenate([to_numpy(batch.dot_vectors(blocks)) for _, batch in self.held_batches()])

    def _spectra(self) -> tuple[Array, Array]:
        """Eigenvalues (n, C) of wᵢΛᵢ and eigenvectors (n, C, C)."""
        summed = self.operator.summed
        values, vectors = [], []
        for part in summed.train.batches(MAX_BATCH_EXAMPLES):
            with self.operator.wide.preserved():
                hessians = self.operator.outputs(self.operator.wide.batch(part), part).hessians()
            eigen = torch.linalg.eigh(hessians.double())
            values.append(to_numpy(eigen.eigenvalues))
            vectors.append(to_numpy(eigen.eigenvectors))
        return np.concatenate(values) * summed.weights[:, None], np.concatenate(vectors)


def roots_of_an_example(summed: SummedObjective) -> float:
    """About how many rows there are for one example, from the outputs of a few at equal distances."""
    limits, n, rows = summed.limits, len(summed.train), 0.0
    for most in COUNTED_EXAMPLES:
        chosen = np.linspace(0, n - 1, min(n, most)).astype(np.intp)
        part = replace(summed, train=summed.train.take(chosen), weights=summed.weights[chosen])
        rows = len(Roots(GaussNewtonOperator(part), limits.dual_trace)) / len(chosen)
        if not 1 / CLOSE_TO_LIMIT < rows * n / limits.dual_rows < CLOSE_TO_LIMIT:
            break
    return rows


def _strongest(values: Array, copies: Array, share: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(example, column) of the largest eigenvalues that hold this share of the sum, ordered by rank, then example.

    For an example that stands for several copies, the eigenvalues of one copy are compared.
    """
    order = np.argsort(values / np.where(copies > 0, copies, 1.0)[:, None], axis=None)[::-1]
    running = np.cumsum(values.ravel()[order])
    last = int(np.searchsorted(running, share * running[-1])) + 1 if running[-1] > 0 else 1
    where, column = np.unravel_index(order[:last], values.shape)
    sort = np.lexsort((where, -column))  # eigenvalues ascend, so the strongest direction is the last column
    return where[sort], column[sort]

"""DataInf: layer by layer, the mean of the examples' inverses replaces the inverse of their mean.

With G the gradients of one layer, W = Σ wᵢ and λ on the scale of the mean loss,

    (1/W) Σ (wᵢ/W) (gᵢgᵢᵀ + λ)⁻¹ q = (q − Gᵀ D G q) / (λW),    D = diag(wᵢ / W(λ + ‖gᵢ‖²))

by Sherman & Morrison: nothing is factored and no system is solved (Kwon, Wu, Wu & Zou 2024, equations 4 and 5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.blocks import blocks
from upweight.core.curvature import Curvature, Solved
from upweight.core.rows import DenseRows, Rows
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.datainf_pairs import paired_training, training_multiples
from upweight.curvature.solvers.algebra import to_numpy
from upweight.curvature.summed_objective import SummedObjective
from upweight.curvature.training_positions import training_positions
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.held_numbers import MAX_CACHED_NUMBERS
from upweight.gradients.matrices import flatten_each
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]
PAIRED_ROWS = 512  # training gradients that are multiplied at a time with all others
LAYER_SHARE = 0.1  # damping over a layer's mean squared gradient per parameter, as in the paper


@final
class FittedDataInf(Curvature):
    """The DataInf curvature: one block for each module, its weight and bias together.

    Args:
        summed: the objective.
        share: λ of a layer is its l2 plus this share of the mean of ‖gᵢ‖² over its parameters. None uses the
            damping of `summed` in every layer.

    Cost: one pass; a query is a product with the training gradients and a weighted sum of them. Training gradients are
    kept if they fit into `MAX_CACHED_NUMBERS`; beyond that, each of the two products takes a pass.

    Raises:
        ValueError: a layer has neither a damping nor a gradient.
    """

    def __init__(self, summed: SummedObjective, share: float | None, saved: SavedState = NOTHING_SAVED) -> None:
        self.summed, self.network = summed, summed.network
        self.total = summed.total
        self.rows = CapturedRows(summed.network, summed.train, "loss").cached()
        modules = dict.fromkeys(name.rpartition(".")[0] for name in summed.network.names)
        self.layers = [tuple(n for n in summed.network.names if n.rpartition(".")[0] == module) for module in modules]
        self.floats = int(saved.facts.get("floats", 0))
        squares = saved.array("squares", (len(self.layers), len(summed.train))) if saved else self._squares()
        self._squared_norms = squares
        sizes = np.array([sum(int(np.prod(summed.network.shapes[n])) for n in names) for names in self.layers])
        self.damping = np.full(len(self.layers), summed.damping / self.total)
        if share is not None:
            self.damping = share * (squares @ summed.weights) / self.total / sizes
        self.shifts = summed.ridge / self.total + self.damping
        if not (self.shifts > 0).all():
            names = self.layers[int(np.argmin(self.shifts))]
            raise ValueError(
                f"nothing to invert for {', '.join(names)}: neither a gradient nor a damping; give a damping"
            )
        self.factors = self.shifts * self.total
        self.scales = summed.weights / self.total / (self.shifts[:, None] + squares)  # D, (layers, n)

    def _squares(self) -> Array:
        """‖gᵢ‖² of every layer, (layers, n)."""
        squares = np.empty((len(self.layers), len(self.summed.train)))
        for where, batch in self.rows.held_batches(MAX_CACHED_NUMBERS):  # more would not be kept
            self.floats = batch.floats
            for layer, names in enumerate(self.layers):
                squares[layer, where] = batch.only(names).squares().double().cpu().numpy()
            del batch
        return squares

    def state(self) -> SavedState:
        """The squared norms of the gradients, layer by layer."""
        return self.summed.saved_state(self, SavedState({"squares": self._squared_norms}, {"floats": self.floats}))

    def matvec(self, vectors: Array) -> Array:
        """The inverse of `solve`, λW (v + Gᵀ (D⁻¹ − GGᵀ)⁻¹ G v). It holds all gradients and is meant for tests."""
        gradients, v = TensorRows.of(self.network, self.rows).blocks, self.network.split(vectors)
        out = dict(v)
        for names, factor, scale in zip(self.layers, self.factors, self.scales, strict=True):
            g, along = (torch.cat([flatten_each(blocks[n]) for n in names], 1).double() for blocks in (gradients, v))
            g = g[scale > 0]
            core = torch.diag(torch.as_tensor(1 / scale[scale > 0])) - g @ g.T
            dual = torch.zeros(len(along), len(scale), dtype=g.dtype)
            dual[:, scale > 0] = torch.linalg.solve(core, g @ along.T).T
            for n in names:
                out[n] = factor * (v[n] + torch.tensordot(dual.to(v[n]), gradients[n], dims=1))
        return self.network.join(out)

    def paired(self, left: Rows, right: Rows) -> Array:
        """leftᵢᵀ (H + λ)⁻¹ rightᵢ; for the training set's own gradients one product of all pairs in every layer."""
        sides = training_multiples(self, left), training_multiples(self, right)
        if sides[0] is None or sides[1] is None:
            return super().paired(left, right)
        return paired_training(self, sides[0], sides[1])

    def solve(self, rows: Rows) -> Solved:
        """(q − Gᵀ D G q) / (λW) for every row q; exact for this curvature."""
        if self.has_few(len(rows)):
            rows = TensorRows.of(self.network, rows)  # one pass for the products and for what they are taken from
        dual = self.products(rows, self.rows) * self.scales[:, None]
        return Solved(DataInfRows(self, rows, dual), 0.0, 0, True)

    def has_few(self, count: int) -> bool:
        """Whether this many rows are cheaper as vectors than by their products with all training gradients."""
        return 2 * count * self.network.size < len(self.rows) * self.floats

    @property
    def calibrated(self) -> bool:
        """False, since this approximates the empirical Fisher."""
        return False

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Kind, solver, size and damping; the damping is the mean over layers."""
        return {
            "curvature": "DataInf (mean of the inverses of single examples)",
            "solver": f"Sherman–Morrison in {len(self.layers)} layers",
            "parameters": self.network.size,
            "damping": float(self.damping.mean()),
            "damping_from": self.summed.damping_from,
        }

    def products(self, left: Rows, right: Rows) -> Array:
        """Inner products layer by layer, (layers, len(left), len(right))."""
        if isinstance(left, CapturedRows) and left.share is not None:
            return self._products_with_share(left, left.share, right)
        if isinstance(right, CapturedRows) and right.share is not None:
            return self._products_with_share(right, right.share, left).transpose(0, 2, 1)
        if not isinstance(left, CapturedRows):
            if isinstance(right, CapturedRows):
                return self.products(right, left).transpose(0, 2, 1)
            a, b = (TensorRows.of(self.network, rows).blocks for rows in (left, right))
            return np.stack([to_numpy(_products(a, b, names)) for names in self.layers])
        out = np.empty((len(self.layers), len(left), len(right)))
        if isinstance(right, CapturedRows):
            if len(right) > len(left):
                return self.products(right, left).transpose(0, 2, 1)
            for columns, right_batch in right.held_batches():
                for rows, left_batch in left.passes(ready=True):
                    for layer, names in enumerate(self.layers):
                        out[layer, rows, columns] = to_numpy(left_batch.only(names).dot(right_batch))
                del right_batch
        else:
            blocks = TensorRows.of(self.network, right).blocks
            for rows, batch in left.passes(ready=True):
                for layer, names in enumerate(self.layers):
                    out[layer, rows] = to_numpy(batch.only(names).dot_vectors(blocks))
        return out

    def _products_with_share(self, left: CapturedRows, share: Mapping[str, Tensor], right: Rows) -> Array:
        """Products of rows that carry the regulariser's share, (layers, len(left), len(right))."""
        common = TensorRows(self.network, {name: block[None] for name, block in share.items()})
        return self.products(left.plain(), right) + left.weights[:, None] * self.products(common, right)


@final
class DataInfRows(Rows):
    """Rows (q − Gᵀ D G q) / (λW) for rows q; `dual` is D G q, (layers, len(q), n)."""

    def __init__(self, fitted: FittedDataInf, rows: Rows, dual: Array) -> None:
        self.fitted, self.rows, self.dual = fitted, rows, dual

    def __len__(self) -> int:
        return int(self.dual.shape[1])

    def dot(self, other: Rows) -> Array:
        """Inner products; with training gradients once for all of them, from those that are kept."""
        where = training_positions(self.fitted.summed, other)
        if where is None or not isinstance(other, CapturedRows) or other.is_stored:
            return self._dot(other)
        out = self._with_training[:, where] * other.weights
        return out if other.share is None else out + self._dot_share(other.share) * other.weights

    @cached_property
    def _with_training(self) -> Array:
        return self._dot(self.fitted.rows)

    def _dot(self, other: Rows) -> Array:
        """Inner products by kernels with the training gradients, or by the rows themselves, whichever is cheaper."""
        fitted = self.fitted
        if fitted.has_few(len(self)) or not isinstance(other, CapturedRows):
            return self._tensors.dot(other)
        plain = other if other.share is None else other.plain()
        out = np.einsum("lmk,l->mk", fitted.products(self.rows, plain), 1 / fitted.factors)
        for columns, batch in other.held_batches():
            for where, few in _few_at_a_time(fitted.rows.passes(ready=True)):
                for names, dual, factor in zip(fitted.layers, self.dual, fitted.factors, strict=True):
                    out[:, columns] -= dual[:, where] @ to_numpy(few.only(names).dot(batch)) / factor
            del batch
        return np.asarray(out if other.share is None else out + self._dot_share(other.share) * other.weights)

    def _dot_share(self, share: Mapping[str, Tensor]) -> Array:
        """Inner products with the share of the regulariser, (len, 1)."""
        fitted = self.fitted
        row = TensorRows(fitted.network, {name: block[None] for name, block in share.items()})
        if fitted.has_few(len(self)):
            return self._tensors.dot(row)
        out = np.einsum("lmk,l->mk", fitted.products(self.rows, row), 1 / fitted.factors)
        along = fitted.products(fitted.rows, row)
        return np.asarray(out - np.einsum("lmn,lnk,l->mk", self.dual, along, 1 / fitted.factors))

    @cached_property
    def _tensors(self) -> TensorRows:
        fitted = self.fitted
        blocks = dict(TensorRows.of(fitted.network, self.rows).blocks)
        for where, batch in fitted.rows.passes(ready=True):
            for names, dual in zip(fitted.layers, self.dual, strict=True):
                sums = batch.only(names).sums(torch.as_tensor(dual[:, where]).to(batch.like))
                blocks |= {name: blocks[name] - block for name, block in sums.items()}
        for names, factor in zip(fitted.layers, fitted.factors, strict=True):
            blocks |= {name: blocks[name] / factor for name in names}
        return TensorRows(fitted.network, blocks)

    def project(self, matrix: Array) -> Array:
        """`dense() @ matrix`."""
        return self._tensors.project(matrix)

    def dense(self) -> Array:
        """(len, parameters)."""
        return self._tensors.dense()

    def take(self, positions: NDArray[np.intp]) -> DataInfRows:
        """The rows at these positions."""
        return DataInfRows(self.fitted, self.rows.take(positions), self.dual[:, positions])

    def sums(self, membership: Array) -> DenseRows:
        """`membership @ dense()`."""
        return self._tensors.sums(membership)


def _few_at_a_time(passes: Iterator[tuple[slice, CapturedBatch]]) -> Iterator[tuple[slice, CapturedBatch]]:
    """(which rows, gradients) of parts of batches, whose products with many others have room in memory."""
    for where, batch in passes:
        for part in blocks(batch.count, PAIRED_ROWS):
            yield slice(where.start + part.start, where.start + part.stop), batch.take(part)


def _products(left: Mapping[str, Tensor], right: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Inner products over these parameters, (len(left), len(right)) in float64."""
    first, *others = (flatten_each(left[name]).double() @ flatten_each(right[name]).double().T for name in names)
    return sum(others, first)

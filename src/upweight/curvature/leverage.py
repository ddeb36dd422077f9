"""The leverage correction: it removes an example's effect on its own prediction from its gradient.

Leaving example i out takes wᵢJᵢᵀΛᵢJᵢ out of the curvature C as well. With wᵢΛᵢ = UᵢUᵢᵀ, Φᵢ = UᵢᵀJᵢ and its row ρᵢ,

    (C − ΦᵢᵀΦᵢ)⁻¹ ρᵢ = C⁻¹ (ρᵢ + Φᵢᵀ v),   v = (I − Φᵢ C⁻¹ Φᵢᵀ)⁻¹ Φᵢ C⁻¹ ρᵢ

so a corrected row is backpropagated from another slope at the output. For a linear model this is ALO (Rad & Maleki
2020); for a network it is the ALO of its linearisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.blocks import blocks
from upweight.core.curvature import Solved
from upweight.core.rows import Rows
from upweight.core.saved_state import SavedState
from upweight.curvature.label_expectation import square_roots
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.capture import backpropagate
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.inspection import inspect
from upweight.gradients.matrices import flatten_each
from upweight.gradients.outputs import outputs
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]
MAX_BATCH_EXAMPLES = 64  # examples; each takes as many rows as it has outputs
MAX_LEVERAGE = 1 - 1e-9  # at 1 the model passes through the point, and removal has no first-order answer


class LeverageSolver(Protocol):
    """A curvature that the leverage correction can use."""

    def pairwise_inner_products(self, rows: Sequence[CapturedBatch]) -> Tensor:
        """⟨xᵢ, C⁻¹ yᵢ⟩ for each pair of k sets of rows of the same examples, (examples, k, k)."""

    def solve(self, rows: Rows) -> Solved:
        """C⁻¹ rows."""


def correct_leverage(
    summed: SummedObjective, rows: Rows, curvature: LeverageSolver, max_leverage: float = MAX_LEVERAGE
) -> CapturedRows | None:
    """Rows of training examples with the leverage correction; None if the rows are not gradients of losses.

    Args:
        summed: the objective, whose weights `rows` carry.
        rows: gradients of losses.
        curvature: C.
        max_leverage: cap on leverages. If C only approximates the sum of its parts, a leverage can exceed 1, and the
            correction would flip signs.

    Cost: one forward pass, outputs + 1 backward passes, and the pairwise inner products.
    """
    if not isinstance(rows, CapturedRows) or not rows.of_loss:
        return None
    network, added, common = summed.network, [], None
    if rows.share is not None:
        share = TensorRows(network, {name: block[None] for name, block in rows.share.items()})
        common = TensorRows.of(network, curvature.solve(share).rows).blocks
    inspection = inspect(network, "loss", rows.examples)
    counted = np.flatnonzero(rows.weights)
    for where in blocks(len(counted), MAX_BATCH_EXAMPLES):
        part = rows.take(counted[where])
        with network.preserved():
            out = outputs(network, network.batch(part.examples), part.examples.ids)
            weights = torch.as_tensor(part.weights).to(out.values.device, network.precision)[:, None]
            directions = [u * weights.sqrt() for u in square_roots(out.hessians())]
            slope = flatten_each(out.gradient()) * weights
        if not directions:
            added.append(np.zeros(slope.shape))
            continue
        gradients = [backpropagate(network, part.examples, inspection, u) for u in [*directions, slope]]
        products = curvature.pairwise_inner_products(gradients).cpu().double().numpy()
        leverages, along = products[:, :-1, :-1], products[:, :-1, -1]
        if common is not None:
            shares = torch.cat([batch.dot_vectors(common) for batch in gradients[:-1]], dim=1).cpu().double().numpy()
            along = along + shares * part.weights[:, None]
        v = leave_one_out(leverages, along, max_leverage)
        slopes_added = np.einsum("bc,cbo->bo", v, torch.stack(directions).cpu().double().numpy())
        added.append(slopes_added / part.weights[:, None])
    slopes = np.zeros((len(rows), *added[0].shape[1:]))
    slopes[counted] = np.concatenate(added)
    return with_added_slopes(rows, slopes)


class SavedSlopes:
    """The slopes at the output of corrected training rows: those of a saved state, or what to keep of those made."""

    def __init__(self, saved: SavedState) -> None:
        self._saved = saved.array("slopes", (None, None)) if "slopes" in saved.arrays else None
        self._made: Array | None = None

    def corrected(self, rows: Rows, correct: Callable[[], CapturedRows | None]) -> CapturedRows | None:
        """The corrections of these training rows, by `correct` or from the saved slopes."""
        if (
            self._saved is not None
            and isinstance(rows, CapturedRows)
            and rows.of_loss
            and len(self._saved) == len(rows)
        ):
            return CapturedRows(rows.network, rows.examples, "loss", rows.weights, rows.share, self._saved)
        made = correct()
        self._made = None if made is None else made.slopes
        return made

    def arrays(self) -> dict[str, Array]:
        """The slopes by name, if there are some."""
        slopes = self._saved if self._made is None else self._made
        return {} if slopes is None else {"slopes": slopes}


def with_added_slopes(rows: CapturedRows, added: Array) -> CapturedRows:
    """The rows with these numbers (n, outputs) added to their slopes at the output."""
    slopes = []
    for part in rows.examples.batches(MAX_BATCH_EXAMPLES):
        with rows.network.preserved():
            slopes.append(flatten_each(outputs(rows.network, rows.network.batch(part), part.ids).gradient()).cpu())
    total = torch.cat(slopes).double().numpy() + added
    return CapturedRows(rows.network, rows.examples, "loss", rows.weights, rows.share, total)


def leave_one_out(leverages: Array, along: Array, max_leverage: float = MAX_LEVERAGE) -> Array:
    """(I − leverages)⁻¹ along for leverages (b, k, k) and along (b, k); eigenvalues are capped at `max_leverage`."""
    values, vectors = np.linalg.eigh(leverages)
    along = np.einsum("bck,bc->bk", vectors, along) / (1 - np.minimum(values, max_leverage))
    return np.asarray(np.einsum("bck,bk->bc", vectors, along))

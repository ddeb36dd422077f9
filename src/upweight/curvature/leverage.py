"""Leverage: what an example holds of its own prediction, taken out of its gradient.

Leaving example i out takes wᵢJᵢᵀΛᵢJᵢ out of the curvature C as well. With wᵢΛᵢ = UᵢUᵢᵀ, Φᵢ = UᵢᵀJᵢ and its row ρᵢ,

    (C − ΦᵢᵀΦᵢ)⁻¹ ρᵢ = C⁻¹ (ρᵢ + Φᵢᵀ v),   v = (I − Φᵢ C⁻¹ Φᵢᵀ)⁻¹ Φᵢ C⁻¹ ρᵢ

so that a corrected row is pulled back from another slope at the output. For a linear model this is ALO (Rad & Maleki
2020); for a network it is that of its linearisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.curvature import Solved
from upweight.core.rows import Rows
from upweight.curvature.label_expectation import square_roots
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.inspection import backpropagate, inspect
from upweight.gradients.outputs import outputs
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]
MAX_BATCH_EXAMPLES = 64  # examples at a time: as many rows as outputs are held of each
MAX_LEVERAGE = (
    1 - 1e-9
)  # a leverage of 1 means that the model passes through the point, and removal has no first-order answer


class LeverageSolver(Protocol):
    """What is needed of a curvature."""

    def pairwise_inner_products(self, rows: Sequence[CapturedBatch]) -> Tensor:
        """⟨xᵢ, C⁻¹ yᵢ⟩ of every two of k sets of rows of the same examples, (examples, k, k)."""

    def solve(self, rows: Rows) -> Solved:
        """C⁻¹ rows."""


def correct_leverage(
    summed: SummedObjective, rows: Rows, curvature: LeverageSolver, max_leverage: float = MAX_LEVERAGE
) -> CapturedRows | None:
    """Rows of training examples with the leverage correction; None for rows of anything else.

    Args:
        summed: the objective; `rows` carry its weights.
        rows: gradients of losses.
        curvature: C, with inner products of rows of the same examples.
        max_leverage: what a leverage counts for at most; a C that only approximates the sum of its parts can have more
            than 1, with which the correction would turn signs around.

    Cost: one pass forward and outputs + 1 backward, and the pairwise_inner_products.
    """
    if not isinstance(rows, CapturedRows) or not rows.of_loss:
        return None
    network, added, common = summed.network, [], None
    if rows.share is not None:
        share = TensorRows(network, {name: block[None] for name, block in rows.share.items()})
        common = TensorRows.of(network, curvature.solve(share).rows).blocks
    found = inspect(network, "loss", rows.examples)
    counted = np.flatnonzero(rows.weights)
    for start in range(0, len(counted), MAX_BATCH_EXAMPLES):
        some = rows.take(counted[start : start + MAX_BATCH_EXAMPLES])
        with network.preserved():
            out = outputs(network, network.batch(some.examples), some.examples.ids)
            weights = torch.as_tensor(some.weights).to(out.values)[:, None]
            directions = [u * weights.sqrt() for u in square_roots(out.hessians())]
            slope = out.gradient().flatten(1) * weights
        if not directions:
            added.append(np.zeros(slope.shape))
            continue
        pulls = [backpropagate(network, some.examples, found, u) for u in [*directions, slope]]
        met = curvature.pairwise_inner_products(pulls).cpu().double().numpy()
        inside, along = met[:, :-1, :-1], met[:, :-1, -1]
        if common is not None:
            each = torch.cat([one.dot_vectors(common) for one in pulls[:-1]], dim=1).cpu().double().numpy()
            along = along + each * some.weights[:, None]
        v = leave_one_out(inside, along, max_leverage)
        bend = np.einsum("bc,cbo->bo", v, torch.stack(directions).cpu().double().numpy())
        added.append(bend / some.weights[:, None])
    slopes = np.zeros((len(rows), *added[0].shape[1:]))
    slopes[counted] = np.concatenate(added)
    return with_added_slopes(rows, slopes)


def with_added_slopes(rows: CapturedRows, added: Array) -> CapturedRows:
    """The same rows with (n, outputs) added to the slopes at the output."""
    slopes = []
    for part in rows.examples.batches(MAX_BATCH_EXAMPLES):
        with rows.network.preserved():
            slopes.append(outputs(rows.network, rows.network.batch(part), part.ids).gradient().flatten(1).cpu())
    found = torch.cat(slopes).double().numpy() + added
    return CapturedRows(rows.network, rows.examples, "loss", rows.weights, rows.share, found)


def leave_one_out(inside: Array, along: Array, max_leverage: float = MAX_LEVERAGE) -> Array:
    """(I − inside)⁻¹ along for leverages (b, k, k) and (b, k), no leverage taken for more than `most`."""
    values, vectors = np.linalg.eigh(inside)
    along = np.einsum("bck,bc->bk", vectors, along) / (1 - np.minimum(values, max_leverage))
    return np.asarray(np.einsum("bck,bk->bc", vectors, along))

"""Gradients from earlier in a training that stopped early, estimated from the trained network.

In the later half of a training of time τ, directions of curvature σ have not yet learned the share λ/(σ + λ), λ = 2/τ.
Along them the outputs grew in proportion to time, and were ¾ of their final values on average:

    C⁻¹ (∇ℓᵢ + P (∇ℓᵢ(¾ z) − ∇ℓᵢ(z))),   P = λ C⁻¹,  C = H + λ

with the slopes of the loss at ¾ of the output z and the Jacobian of the trained network. A direction that was learned
keeps its gradient: at an optimum that is what removal takes away. Final gradients say too little about the first half.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import torch

from upweight.core.rows import Rows
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.outputs import NoOutputsError, outputs

DAMPING_TIMES_TIME = 2.0  # λ τ, for the later half of the training
MEAN_OUTPUT_SHARE = 0.75  # mean of the outputs in the later half over those at the end
MAX_BATCH_EXAMPLES = 64
MAX_SLOPE_NUMBERS = 1 << 26  # slopes that are held: 512 MB
ROUNDING_UNITS = 100  # units in the last place within which a loss counts as quadratic in its outputs


def earlier_gradients(summed: SummedObjective, rows: Rows) -> tuple[float, CapturedRows] | None:
    """(λ on the summed scale, wᵢ(∇ℓᵢ(¾ z) − ∇ℓᵢ(z))) for rows that are gradients of losses.

    None if the damping is not matched to a training time, if the loss is not a function of the net's output, or if it
    is quadratic in the output: then ¾ of the output is not a gentler loss but, for examples that are fitted, a residual
    of the opposite sign.
    """
    if not summed.matched or not isinstance(rows, CapturedRows) or not rows.of_loss:
        return None
    network, slopes, quadratic = summed.network, [], True
    for part in rows.examples.batches(MAX_BATCH_EXAMPLES):
        with network.preserved():
            try:
                out = outputs(network, network.batch(part), part.ids)
            except NoOutputsError:
                return None
            if prod(out.values.shape[1:]) * len(rows) > MAX_SLOPE_NUMBERS:
                return None
            final, earlier, half, zero = (
                replace(out, values=share * out.values).gradient().flatten(1)
                for share in (1.0, MEAN_OUTPUT_SHARE, 0.5, 0.0)
            )
        tiny = ROUNDING_UNITS * torch.finfo(final.dtype).eps * float(final.abs().max() + zero.abs().max())
        quadratic = quadratic and float((final - 2 * half + zero).abs().max()) <= tiny
        slopes.append((earlier - final).cpu().double().numpy())
    if quadratic:
        return None
    return summed.damping, CapturedRows(network, rows.examples, "loss", rows.weights, None, np.concatenate(slopes))

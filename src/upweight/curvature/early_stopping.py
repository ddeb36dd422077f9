"""Gradients from earlier in a training that stopped early, estimated from the trained network.

In the later half of a training of time τ, the share λ/(σ + λ), λ = 2/τ, of a direction of curvature σ is not learned
yet. In this share the outputs grow in proportion to time, so on average they are ¾ of their final values. The gradient
of example i is therefore corrected, and removing the example moves the parameters by

    C⁻¹ (∇ℓᵢ + P (∇ℓᵢ(¾ z) − ∇ℓᵢ(z))),   P = λ C⁻¹,  C = H + λ

Here ∇ℓᵢ(¾ z) combines the slope of the loss at ¾ of the output z with the Jacobian of the trained network. A direction
that was learned keeps its final gradient: at an optimum, a removal takes away exactly that. The first half of the
training is not modelled, since gradients of the trained network say too little about it.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import torch

from upweight.core.rows import Rows
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.matrices import flatten_each
from upweight.gradients.outputs import NoOutputsError, outputs

DAMPING_TIMES_TIME = 2.0  # λ τ, for the later half of the training
MEAN_OUTPUT_SHARE = 0.75  # mean of the outputs in the later half over those at the end
MAX_BATCH_EXAMPLES = 64
MAX_SLOPE_NUMBERS = 1 << 26  # in the slopes of all examples: 512 MB
ROUNDING_UNITS = 100  # units in the last place within which a loss counts as quadratic in its outputs


def earlier_gradients(summed: SummedObjective, rows: Rows) -> tuple[float, CapturedRows] | None:
    """(λ on the summed scale, wᵢ(∇ℓᵢ(¾ z) − ∇ℓᵢ(z))) for rows that are gradients of losses.

    None if the damping is not matched to a training time, if the loss is not a function of the net's output, or if it
    is quadratic in the output: at ¾ of its output, a fitted example would have a residual of the opposite sign.
    """
    if not summed.time_matched or not isinstance(rows, CapturedRows) or not rows.of_loss:
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
                flatten_each(replace(out, values=share * out.values).gradient())
                for share in (1.0, MEAN_OUTPUT_SHARE, 0.5, 0.0)
            )
        rounding_error = ROUNDING_UNITS * torch.finfo(final.dtype).eps * float(final.abs().max() + zero.abs().max())
        quadratic = quadratic and float((final - 2 * half + zero).abs().max()) <= rounding_error
        slopes.append((earlier - final).cpu().double().numpy())
    if quadratic:
        return None
    return summed.damping, CapturedRows(network, rows.examples, "loss", rows.weights, None, np.concatenate(slopes))

"""Earlier: what gradients were while a training that stopped early was under way, as far as its end can tell.

Of the later half of a training of time τ, directions of curvature σ have not learned the share λ/(σ + λ), λ = 2/τ.
Along those outputs grew in proportion to time, and were ¾ of what they are at the end on average:

    C⁻¹ (∇ℓᵢ + P (∇ℓᵢ(¾ z) − ∇ℓᵢ(z))),   P = λ C⁻¹,  C = H + λ

with the slopes of the loss at ¾ of the output z and the Jacobian of the end. A direction that was learned keeps its
gradient: at an optimum that is what removal takes away. Of the first half gradients at the end say too little.
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

DAMPING_TIMES_TIME = 2.0  # λ τ: of the later half
MEAN_OUTPUT_SHARE = 0.75  # share of the outputs in it, on average
MAX_BATCH_EXAMPLES = 64
MAX_SLOPE_NUMBERS = 1 << 26  # slopes that are held: 512 MB
ROUNDING_UNITS = 100  # units in the last place within which a loss is quadratic in its outputs


def earlier_gradients(summed: SummedObjective, rows: Rows) -> tuple[float, CapturedRows] | None:
    """(λ on the summed scale, wᵢ(∇ℓᵢ(¾ z) − ∇ℓᵢ(z))) for the gradients of losses.

    None where the damping is not matched to a time, where the loss is no function of the net's output, and where it is
    quadratic in it: there ¾ of the output is not a gentler loss, it is a residual of other sign for what is fitted.
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
            now, then, half, none = (
                replace(out, values=share * out.values).gradient().flatten(1)
                for share in (1.0, MEAN_OUTPUT_SHARE, 0.5, 0.0)
            )
        tiny = ROUNDING_UNITS * torch.finfo(now.dtype).eps * float(now.abs().max() + none.abs().max())
        quadratic = quadratic and float((now - 2 * half + none).abs().max()) <= tiny
        slopes.append((then - now).cpu().double().numpy())
    if quadratic:
        return None
    return summed.damping, CapturedRows(network, rows.examples, "loss", rows.weights, None, np.concatenate(slopes))

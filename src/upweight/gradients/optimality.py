"""How far the parameters are from an optimum of the training objective."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.gradient_totals import GradientTotals, take_totals

Array = NDArray[np.float64]


def gradient_norm(rows: CapturedRows, backpropagate: Array) -> float:
    """‖Σᵢ rowᵢ + pull‖ / √Σ‖rowᵢ‖², where a row that counts for several copies is several gradients.

    It is 0 at the optimum, and about 1 on data with gradients of random signs. The sums come from passes that were
    already made, and from one new pass if those left examples out.

    Args:
        rows: the weighted gradients of all training losses, without a regulariser's share.
        pull: (parameters,), the regulariser's gradient.
    """
    network = rows.network
    totals = take_totals(network, rows.examples)
    if totals is None or totals.version != network.version:  # the net was trained on since the totals were begun
        totals = GradientTotals(rows.weights, network.version)
    for where, batch in rows.passes() if totals.waiting[rows.weights != 0].any() else ():
        totals.add(np.arange(where.start, where.stop), rows.weights[where], batch)
    gradient = network.join(totals.total)[0] + backpropagate if totals.total else backpropagate
    return float(np.linalg.norm(gradient) / max(np.sqrt(totals.squares), 1e-300))

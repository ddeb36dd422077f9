"""How far the parameters are from an optimum of the training objective."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.gradient_totals import GradientTotals, take_totals

Array = NDArray[np.float64]


def gradient_norm(rows: CapturedRows, regulariser_gradient: Array) -> float:
    """‖Σᵢ rowᵢ + regulariser gradient‖ / √Σ‖rowᵢ‖², where a row that counts for k copies is k gradients.

    It is 0 at the optimum, and about 1 for gradients with random signs. The sums come from earlier passes over the
    training set, and from one new pass if those left examples out.

    Args:
        rows: the weighted gradients of all training losses, without the regulariser.
        regulariser_gradient: (parameters,).
    """
    network = rows.network
    totals = take_totals(network, rows.examples)
    if totals is None or totals.version != network.version:  # the net was trained further since
        totals = GradientTotals(rows.weights, network.version)
    for block, batch in rows.passes() if totals.missing[rows.weights != 0].any() else ():
        totals.add(np.arange(block.start, block.stop), rows.weights[block], batch)
    gradient = regulariser_gradient
    if totals.total:
        gradient = network.join(totals.total)[0] + regulariser_gradient
    return float(np.linalg.norm(gradient) / max(np.sqrt(totals.squares), 1e-300))

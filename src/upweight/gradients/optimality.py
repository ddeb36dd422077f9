"""How far the parameters are from an optimum of the training objective."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.gradients.rows import CapturedRows

Array = NDArray[np.float64]


def gradient_norm(rows: CapturedRows, pull: Array) -> float:
    """‖Σᵢ rowᵢ + pull‖ over √Σ‖rowᵢ‖², from one pass.

    0 at the optimum, about 1 on data with gradients of random signs.

    Args:
        rows: the weighted gradients of all training losses, without a regulariser's share.
        pull: (parameters,), the regulariser's gradient.
    """
    total: dict[str, Tensor] = {}
    squares = 0.0
    for _, batch in rows.passes():
        squares += float(batch.squares().double().sum())
        found = batch.sums(torch.ones(1, batch.count).to(batch.like))
        total = {name: total[name] + block if total else block for name, block in found.items()}
    gradient = rows.network.join(total)[0] + pull
    return float(np.linalg.norm(gradient) / max(np.sqrt(squares), 1e-300))

"""How far the parameters are from an optimum of the training objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.weights import example_counts

if TYPE_CHECKING:
    from upweight.gradients.captured import Captured
    from upweight.gradients.rows import CapturedRows

Array = NDArray[np.float64]


class Totals:
    """Sum and squared norms of the gradients of training losses, of every example once, from whatever pass comes by.

    Args:
        weights: (n,) the examples' own, by which their gradients are multiplied.
        version: of the parameters that the passes are made at.

    Attributes:
        waiting: (n,) examples that no pass has seen.
        total: name → Σ wᵢ∇ℓᵢ (1, *shape) of those that were seen.
        squares: Σ ‖wᵢ∇ℓᵢ‖² of them, where a row that counts for several copies is several gradients.
    """

    def __init__(self, weights: Array, version: int) -> None:
        self.version = version
        self.weights, self.waiting = np.asarray(weights, dtype=np.float64), np.ones(len(weights), dtype=bool)
        self._copies = np.maximum(example_counts(self.weights), 1.0)
        self.total: dict[str, Tensor] = {}
        self.squares = 0.0

    def add(self, places: NDArray[np.intp], carried: Array, batch: Captured) -> None:
        """A batch of the examples at these places, each gradient times a number that it carries."""
        new = self.waiting[places] & (carried != 0)
        if not new.any():
            return
        scale = np.where(new, self.weights[places] / np.where(new, carried, 1.0), 0.0)
        self.squares += float(batch.squares().double().cpu().numpy() @ (scale**2 / self._copies[places]))
        found = batch.sums(torch.as_tensor(scale[None]).to(batch.like))
        self.total = {name: self.total[name] + block if self.total else block for name, block in found.items()}
        self.waiting[places[new]] = False


def gradient_norm(rows: CapturedRows, pull: Array) -> float:
    """‖Σᵢ rowᵢ + pull‖ over √Σ‖rowᵢ‖² (of copies), from one pass, or from the totals of passes that were made already.

    0 at the optimum, about 1 on data with gradients of random signs.

    Args:
        rows: the weighted gradients of all training losses, without a regulariser's share.
        pull: (parameters,), the regulariser's gradient.
    """
    network = rows.network
    totals = network.totals.pop(rows.examples, None)
    if totals is None or totals.version != network.version:  # the net was trained on in between
        totals = Totals(rows.weights, network.version)
    for where, batch in rows.passes() if totals.waiting[rows.weights != 0].any() else ():
        totals.add(np.arange(where.start, where.stop), rows.weights[where], batch)
    gradient = network.join(totals.total)[0] + pull if totals.total else pull
    return float(np.linalg.norm(gradient) / max(np.sqrt(totals.squares), 1e-300))

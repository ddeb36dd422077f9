"""Sums of training gradients, which passes over a training set collect beside their own work."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples
from upweight.core.weights import example_counts
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.network import Network
from upweight.gradients.network_memo import NetworkMemo
from upweight.gradients.preserve_model import PASSES

Array = NDArray[np.float64]


class GradientTotals:
    """Sum and squared norms of the gradients of training losses, with every example counted once.

    Args:
        weights: (n,) the weights of the examples, by which their gradients are multiplied.
        version: of the parameters at which the passes are made.

    Attributes:
        missing: (n,) whether no pass has reached the example yet.
        total: name → Σ wᵢ∇ℓᵢ (1, *shape) over the examples that a pass has reached.
        squares: Σ ‖wᵢ∇ℓᵢ‖² over the same examples; a row that counts for several copies is several gradients.
    """

    def __init__(self, weights: Array, version: int) -> None:
        self.version = version
        self.weights, self.missing = np.asarray(weights, dtype=np.float64), np.ones(len(weights), dtype=bool)
        self._counts = np.maximum(example_counts(self.weights), 1.0)
        self.total: dict[str, Tensor] = {}
        self.squares = 0.0

    def add(self, positions: NDArray[np.intp], multipliers: Array, batch: CapturedBatch) -> None:
        """Add a batch of the examples at these positions, whose gradients carry these multipliers."""
        with PASSES.lock:  # threads that pass over the same examples count them once
            self._add(positions, multipliers, batch)

    def _add(self, positions: NDArray[np.intp], multipliers: Array, batch: CapturedBatch) -> None:
        new = self.missing[positions] & (multipliers != 0)
        if not new.any():
            return
        scale = np.where(new, self.weights[positions] / np.where(new, multipliers, 1.0), 0.0)
        self.squares += float(batch.squares().double().cpu().numpy() @ (scale**2 / self._counts[positions]))
        sums = batch.sums(torch.as_tensor(scale[None]).to(batch.like))
        self.total = {name: self.total[name] + block if self.total else block for name, block in sums.items()}
        self.missing[positions[new]] = False


_TOTALS: NetworkMemo[WeakKeyDictionary[Examples, GradientTotals]] = NetworkMemo()


def collect_totals(network: Network, train: Examples, weights: Array) -> None:
    """From now on, passes over the losses of `train` also fill in its gradient totals."""
    _TOTALS.get_or_make(network, WeakKeyDictionary)[train] = GradientTotals(weights, network.version)


def collecting_totals(network: Network, examples: Examples) -> GradientTotals | None:
    """The totals that passes over these examples are to fill in; None if they are not collected."""
    totals = _TOTALS.get(network)
    return None if totals is None else totals.get(examples)


def take_totals(network: Network, train: Examples) -> GradientTotals | None:
    """Return the totals collected so far, and stop collecting; None if there are none."""
    totals = _TOTALS.get(network)
    return None if totals is None else totals.pop(train, None)

"""`Reweighting`: how weights are learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from upweight.core.blocks import require_count
from upweight.retraining.retraining import Retraining

Way = Literal["influence", "metagradient", "last layer", "retraining"]
WAYS = ("influence", "metagradient", "last layer", "retraining")
SEEDS = 3  # trainings per weighting of a network, if the caller names no seeds


@dataclass(frozen=True, kw_only=True)
class Reweighting:
    """How `reweight` learns weights.

    Args:
        slopes: where they come from. "influence" at the retrained model (linear models, boosted trees),
            "metagradient" through the whole training (networks with `uw.Training`), "last layer": by influence on the
            last layer while a network trains (Ren et al. 2020, algorithm 1), "retraining" with each weight raised and
            lowered (any model, few groups). None for the first of "influence", "metagradient" and "retraining" that
            the model allows.
        steps: how often the weights change.
        rate: how far a weight may move in one step.
        largest: no weight becomes larger.
        damping: of the last layer's Hessian, on the scale of the mean loss.
        retraining: where and how to train; its seeds are those of the comparison. None for three seeds of a network,
            and one in this process for a model whose training ends at an optimum.

    Raises ValueError for unknown `slopes`, and numbers that are not positive.
    """

    slopes: Way | None = None
    steps: int = 20
    rate: float = 0.1
    largest: float = 2.0
    damping: float = 1.0
    retraining: Retraining | None = None

    def __post_init__(self) -> None:
        if self.slopes is not None and self.slopes not in WAYS:
            raise ValueError(f"expected slopes to be one of {', '.join(WAYS)} or None, got {self.slopes!r}")
        require_count("steps", self.steps)
        for name in ("rate", "damping"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"expected {name} > 0, got {getattr(self, name)}")
        if not 1 < self.largest < np.inf:
            raise ValueError(f"expected largest > 1, the weight that training examples begin with, got {self.largest}")

        if self.retraining is not None and not isinstance(self.retraining, Retraining):
            raise TypeError(f"expected retraining as uw.Retraining(…) or None, got {self.retraining!r}")

    def retraining_of(self, model: Any) -> Retraining:
        """Where and how to train this model, with the seeds of the comparison."""
        if self.retraining is not None:
            return self.retraining
        if model.converges:
            return Retraining(processes=1)
        return Retraining(seeds=1 if model.has_one_run else SEEDS)

"""The capability of a model whose example weights can change while it trains."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Retrainable

Array = NDArray[np.float64]
Steer = Callable[[Any, Array], Array]  # (the model so far, its weights (n,)) → new weights (n,)


class Steerable(Retrainable):
    """A model whose training goes step by step, so that weights can follow from what it has learned so far."""

    @abstractmethod
    def retrain_steered(self, train: Examples, weights: Array, steer: Steer, times: int, seed: int = 0) -> Self:
        """Like `retrain`, but `steer` gives new weights (n,) at `times` steps, at equal distances within the training.

        Raises ValueError if the training has fewer steps, or chooses its batches by the weights.
        """

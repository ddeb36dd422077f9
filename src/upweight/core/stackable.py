"""Stackable: models of which many can be trained at once, in stacked copies."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Retrainable


@dataclass(frozen=True)
class Stack:
    """How many models are trained at once.

    Attributes:
        size: 1 if training one by one is cheaper or the only way.
        why: the reason, for people.
    """

    size: int
    why: str = ""


class Stackable(Retrainable):
    """A model that can be retrained with many example weightings at once, in stacked copies."""

    @abstractmethod
    def stack(self, train: Examples) -> Stack:
        """How many copies to train at once."""

    @abstractmethod
    def retrain_many(
        self, train: Examples, weights: NDArray[np.float64], seeds: Sequence[int]
    ) -> Sequence[Retrainable]:
        """One model per row of weights (M, n) and entry of seeds (M,), each as `retrain` would train it."""

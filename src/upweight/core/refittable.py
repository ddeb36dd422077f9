"""Models of which nothing is known but that they can be trained again."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Measurable, Retrainable

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """Findings of the first trainings on the whole training set.

    Attributes:
        seconds: the time of one training.
        is_random: whether trainings with different seeds give different predictions.
        notes: sentences that a reader of the scores should know.
    """

    seconds: float
    is_random: bool
    notes: tuple[str, ...] = ()


class Refittable(Retrainable):
    """A model that is explained by training it again; nothing inside it is used.

    Attributes:
        takes_fractions: whether it can be trained with weights that are not whole numbers.
    """

    takes_fractions: bool = False

    @abstractmethod
    def trial(self, train: Examples) -> Trial:
        """Train on everything, and with two seeds on a part of it, once per training set.

        Raises ValueError if training does not depend on the seed and gives another model.
        """

    def leaves(self, examples: Examples) -> NDArray[np.intp]:
        """The leaf of every example in every tree inside the model, (m, trees). Raises ValueError if there are none."""
        raise ValueError('expected a model with trees inside for by="leaves"; use by="neighbours" or "loss"')

    @abstractmethod
    def measure_uninformed(self, train: Examples, weights: Array, queries: Examples) -> Array:
        """The measurement of predictions that do not look at inputs, (m,).

        They are the shares of the classes, or the mean target, among training examples with these weights (n,). If all
        weights are 0, they are equal shares, or the mean target of all.
        """


class Bagged(Measurable):
    """An ensemble of members that were each trained on a random sample of the training set, its bag."""

    @abstractmethod
    def bags(self, train: Examples) -> Array:
        """How often each example is in the bag of each member, (members, n)."""

    @abstractmethod
    def measure_members(self, queries: Examples) -> Array:
        """The measurement of every query on every member alone, (members, m)."""

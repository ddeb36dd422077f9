"""`ExactRemovals`: models that their training examples determine in closed form, so that removals need no training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.forgettable import Forgettable

Array = NDArray[np.float64]


class ExactRemovals(Forgettable):
    """A model whose measurements without some of its training examples are computed exactly, without training.

    `retrain` trains the estimator itself, so that it can verify what is computed here.
    """

    @abstractmethod
    def measure_without_each(self, train: Examples, positions: NDArray[np.intp], queries: Examples) -> Array:
        """The measurement of every query without the training example at each of these positions, (m, positions)."""

    @abstractmethod
    def measure_without(self, train: Examples, membership: NDArray[np.bool_], queries: Examples) -> Array:
        """The measurement of every query without each group, a row of `membership` (groups, n): (m, groups).

        Raises:
            ValueError: the model cannot be trained without one of the groups.
        """

    @abstractmethod
    def undefined_removals(self, train: Examples) -> Mapping[int, str]:
        """Position → why the model cannot be trained without this training example alone, in a sentence."""

    def doubts(self, train: Examples, queries: Examples) -> Sequence[str]:
        """Sentences that a reader of the scores of these queries should know; by default none."""
        return ()

    def described(self) -> Sequence[str]:
        """Sentences about what the model is, for the head of a report, which are no warnings; by default none."""
        return ()

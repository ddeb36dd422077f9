"""The capabilities of ensembles of trees, boosted or averaged."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Measurable


class TreeBased(Measurable):
    """A sum of trees: every example falls into one leaf of each tree, and leaves hold numbers.

    The types of `grown`, `trees` and `loss` belong to `upweight.trees`, which `upweight.core` does not import.
    """

    loss: Any

    @abstractmethod
    def trees(self) -> Any:
        """The `TreeEnsemble`: leaf values, which output each tree adds to, and at which step."""

    @abstractmethod
    def leaves(self, examples: Examples) -> NDArray[np.intp]:
        """The leaf of every tree into which each example falls, (n, trees); leaves are numbered over all trees."""

    @abstractmethod
    def grown(self, train: Examples) -> Any:
        """How the leaf values were computed from these examples: a `Boosting` or a `Forest`."""

    @abstractmethod
    def measure_margins(self, queries: Examples, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """The measurement of every query, (m,), as a function of the margins (m, outputs)."""

    @abstractmethod
    def measure_slopes(self, queries: Examples, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """∂measurement/∂margins at these margins, (m, outputs)."""


class Boosted(TreeBased):
    """Boosted trees: each is fitted to the residuals of the trees before it; `grown` returns a `Boosting`."""


class Averaged(TreeBased):
    """A forest: trees fitted independently, whose mean is the output; `grown` returns a `Forest`."""

"""A network whose training gradients and curvature factors can be kept on disk and read from there."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import Curvature
from upweight.core.examples import Examples
from upweight.core.model import Differentiable
from upweight.core.saved_state import SavedState
from upweight.core.storable import Storable
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.captured_source import CapturedSource
from upweight.gradients.gradient_totals import collect_totals
from upweight.gradients.network import Network


class StorableNetwork(Storable):
    """A network that reads gradients and factors from a store."""

    network: Network
    _stored: tuple[CapturedSource, Examples] | None = None
    _factors: tuple[Network, Callable[[Any, float | None], Curvature | None]] | None = None

    @abstractmethod
    def weights(self, train: Examples) -> NDArray[np.float64]:
        """Sample weights, (n,)."""

    def restored_curvature(self, train: Examples, recipe: Any, damping: float | None, state: SavedState) -> Curvature:
        """The curvature from its saved state, with which no pass over the training set is needed."""
        from upweight.curvature import registry

        if not state:
            return self.curvature(train, recipe, damping)
        collect_totals(self.network, train, self.weights(train))
        restored: Curvature = registry.restore(self, train, recipe, state)
        return restored

    def stored(self, store: Any, train: Examples) -> Differentiable:
        """The same model, with training gradients that are read from a store; what is missing is built first."""
        from upweight.store.stored_model import stored_model

        return stored_model(self, store, train)

    def with_stored_factors(self, store: Any, train: Examples) -> Self:
        """The same model with its own gradients, whose KFAC and EK-FAC take their factors from a finished store."""
        from upweight.store.stored_model import stored_factors

        reading = copy.copy(self)
        reading._factors = self.network, stored_factors(self, store, train)
        return reading

    def with_stored_gradients(self, source: CapturedSource, train: Examples) -> Self:
        """The same model, whose loss rows of this training set are read instead of captured."""
        reading = copy.copy(self)
        reading._stored = source, train
        return reading

    def read_if_stored(self, rows: CapturedRows) -> CapturedRows:
        """The loss rows, read from the store if they are those of the training set whose gradients it holds."""
        if self._stored is None or rows.examples is not self._stored[1] or not self._stored[0].covers(rows.network):
            return rows
        return rows.read_from(self._stored[0])

    def curvature_of_store(self, recipe: Any, damping: float | None) -> Curvature | None:
        """The curvature with the factors of a store; None without a store, or if it has none for this recipe."""
        if self._factors is None or self.network is not self._factors[0]:
            return None
        return self._factors[1](recipe, damping)

"""A recipe together with the store that it is asked from, for everything that takes a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from upweight.core.attributor import Attributor, Fitted
from upweight.core.examples import Examples
from upweight.core.promises import Promises


@final
@dataclass(frozen=True, kw_only=True)
class FromStore(Attributor):
    """A method that is asked from a store: its `fit` is `recipe.fit(model, train, store=store)`.

    Args:
        recipe: the method.
        store: a `uw.Store`.
    """

    recipe: Attributor
    store: Any

    @property
    def promises(self) -> Promises:
        """The promises of the method, without a floor: what is lost depends on the encoding."""
        return Promises(no_floor="the encoding of the store decides what is lost", waives=self.recipe.promises.waives)

    def fit(self, model: Any, train: Examples) -> Fitted[Any, Any]:
        """The method, fitted on gradients that are read from the store."""
        fit: Any = self.recipe.fit
        fitted: Fitted[Any, Any] = fit(model, train, store=self.store)
        return fitted

    def described(self) -> dict[str, Any]:
        """Name and settings of the method."""
        return self.recipe.described()

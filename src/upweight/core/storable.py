"""The capability of a model whose training gradients can be kept on disk, and `fit(…, store=…)` of the methods."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any

from upweight.core.capability_checks import require
from upweight.core.examples import Examples
from upweight.core.model import Differentiable


class Storable(Differentiable):
    """A model whose training gradients a store can keep."""

    @abstractmethod
    def stored(self, store: Any, train: Examples) -> Differentiable:
        """The same model, with training gradients that are read from the store; what is missing there is built first.

        Raises ValueError for a store of another model, loss or training set.
        """

    def with_stored_factors(self, store: Any, train: Examples) -> Differentiable:
        """The same model with its own gradients, whose KFAC and EK-FAC take their factors from a finished store."""
        return self


def with_store(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the `fit` of a recipe so that it takes `store=` and then fits the model that reads from the store."""

    @wraps(fit)
    def fit_with_store(recipe: Any, model: Any, train: Examples, *args: Any, store: Any = None, **kwargs: Any) -> Any:
        if store is None:
            return fit(recipe, model, train, *args, **kwargs)
        name = type(recipe).__name__
        if not recipe.answers_from_store:
            raise TypeError(
                f"{name} cannot answer from a store: it needs more than the training gradients at the end of the "
                "training; Influence, RelatIF, GradDot and GradCos can"
            )
        require(model, [Storable], f"{name}.fit(…, store=…)", train)
        return fit(recipe, model.stored(store, train), train, *args, **kwargs)

    return fit_with_store

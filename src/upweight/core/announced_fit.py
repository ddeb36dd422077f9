"""The `fit` of a recipe says what it will take, before a long one starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from upweight.core.examples import Examples
from upweight.core.forecast import announced, is_announced
from upweight.core.model import Measurable


def with_forecast(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the `fit` of a recipe so that it says what it will take, if that is long, and how far it is."""

    @wraps(fit)
    def announced_fit(recipe: Any, model: Any, train: Examples, *args: Any, **kwargs: Any) -> Any:
        if is_announced():
            return fit(recipe, model, train, *args, **kwargs)
        forecast = model.forecast(recipe, train) if isinstance(model, Measurable) else None
        with announced(f"{type(recipe).__name__}.fit on {len(train):,} training examples", forecast):
            return fit(recipe, model, train, *args, **kwargs)

    return announced_fit

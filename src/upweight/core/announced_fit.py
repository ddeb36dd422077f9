"""Before long work on a fit or on its queries starts, say what it will take."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

from upweight.core.curvature import Curvature
from upweight.core.examples import Examples
from upweight.core.forecast import Forecast, announced, is_announced
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


def announced_queries(fitted: Any, queries: Examples, held: int = 0) -> AbstractContextManager[None]:
    """A context of work of a fit on these queries, which says what it takes if that is long.

    Scores of `held` queries are in memory at a time; by default of all.
    """
    if is_announced():
        return nullcontext()
    recipe, train = fitted.recipe, fitted.train
    results = Forecast({}, 8.0 * len(train) * min(held or len(queries), len(queries)))
    forecast = fitted.model.forecast(recipe, train, len(queries), curvature_of(fitted)) or results
    return announced(f"{type(recipe).__name__}, {len(queries):,} queries", forecast)


def curvature_of(fitted: Any) -> Curvature | None:
    """The curvature of a fit; None if it has none."""
    curvature = getattr(fitted, "curvature", None)
    return curvature if isinstance(curvature, Curvature) else None

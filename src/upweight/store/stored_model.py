"""A network whose training gradients are read from a store: the entry for models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from upweight.core.announcements import announcements
from upweight.core.curvature import Curvature
from upweight.core.curvature_recipes import EKFAC, KFAC, CurvatureRecipe
from upweight.core.examples import Examples
from upweight.core.model import Differentiable
from upweight.gradients.capture import capture
from upweight.gradients.inspection import inspect
from upweight.store.coordinate_curvature import fitted_from
from upweight.store.coordinate_model import CoordinateModel
from upweight.store.store import Store
from upweight.store.stored_gradients import StoredGradients
from upweight.store.stored_shards import StoredShards


def stored_model(model: Any, store: Store, train: Examples) -> Differentiable:
    """The model that reads from the store; what is missing there is built first.

    Raises:
        TypeError: `store` is not a Store.
        ValueError: it is a store of something else, or damaged.
    """
    if not isinstance(store, Store):
        raise TypeError(f"expected store=uw.Store(folder), got {store!r}")
    builder = store.builder(model, train)
    if any(builder.missing(phase) for phase in ("basis", "rows")):
        announcements.info("%s", store.plan(model, train))
        store.build(model, train)
        builder = store.builder(model, train)
    shards = StoredShards(builder.folder, builder.header, builder.identity("rows"))
    if not builder.header.encoding.keeps_gradients:
        coordinates = CoordinateModel(model, builder, shards, store.memory)
        return coordinates if store.modules is None else coordinates.narrowed(store.modules)
    inspection = inspect(model.network, "loss", train)
    pilot = capture(model.network, "loss", train.take([0]), inspection)
    narrowed = model if store.modules is None else model.narrowed(store.modules)
    with_gradients: Differentiable = narrowed.with_stored_gradients(
        StoredGradients(shards, model.network, pilot), train
    )
    return with_gradients


def stored_factors(
    model: Any, store: Store, train: Examples
) -> Callable[[CurvatureRecipe | None, float | None], Curvature | None]:
    """A function of recipe and damping that returns KFAC or EK-FAC from a finished store; None for other curvatures.

    Raises ValueError for a store of something else, or half of one.
    """
    builder = store.builder(model, train)

    def curvature(recipe: CurvatureRecipe | None, damping: float | None) -> Curvature | None:
        if recipe not in (KFAC(), EKFAC()) or builder.header.encoding.keeps_gradients:
            return None
        return fitted_from(builder, recipe, damping)

    return curvature

"""Which methods there are, and which to try first."""

from __future__ import annotations

import inspect
from typing import Any, TypeGuard

from upweight.core.attributor import Attributor
from upweight.core.examples import Examples
from upweight.core.model import Averaged, Differentiable, Embeddable, Measurable, Retrainable, TreeBased, can
from upweight.core.plugins import METHODS, plugins
from upweight.methods import built_in
from upweight.methods.boostin import BoostIn
from upweight.methods.forest_weights import ForestWeights
from upweight.methods.influence import Influence
from upweight.methods.knn_shapley import KNNShapley
from upweight.methods.leaf_influence import LeafInfluence
from upweight.methods.leaf_refit import LeafRefit
from upweight.methods.leave_one_out import LeaveOneOut
from upweight.methods.tree_sim import TreeSim

WITHIN_A_MINUTE = 4e9  # gradients: removals × examples × trees


def methods() -> dict[str, type[Attributor]]:
    """Name → recipe class of every method: the built-in ones as `built_in` orders them, then those of plugins.

    A plugin that cannot be used is a UserWarning (see `core/plugins.py`).
    """
    recipes = {recipe.__module__.rpartition(".")[2]: recipe for recipe in vars(built_in).values() if _is_method(recipe)}
    installed = plugins(METHODS, frozenset(recipes), _misfit)
    return recipes | {name: plugin.loaded for name, plugin in installed.items()}


def _is_method(given: Any) -> TypeGuard[type[Attributor]]:
    return isinstance(given, type) and issubclass(given, Attributor) and not inspect.isabstract(given)


def _misfit(plugin: Any) -> str | None:
    """Why this object is no method."""
    if _is_method(plugin):
        return None
    return f"expected a subclass of upweight.Attributor that implements all its abstract methods, got {plugin!r}"


def first_choice(model: Measurable, train: Examples) -> Attributor:
    """What to try first on this model: an effect where one can be had within a minute, else a ranking."""
    if not isinstance(model, TreeBased):
        return _without_trees(model)
    grown = model.grown(train)
    if can(model, Averaged):
        return ForestWeights() if grown.exact else TreeSim()
    work = len(train) ** 2 * model.trees().trees
    if not grown.exact:
        return BoostIn()
    return LeafRefit() if work <= WITHIN_A_MINUTE else LeafInfluence()


def _without_trees(model: Measurable) -> Attributor:
    """Influence where there are gradients, else what the model's capabilities allow."""
    if can(model, Differentiable) or not (can(model, Retrainable) or can(model, Embeddable)):
        return Influence()
    return LeaveOneOut() if can(model, Retrainable) else KNNShapley()

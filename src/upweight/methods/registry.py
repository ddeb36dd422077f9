"""The list of all methods, and which to try first for a model."""

from __future__ import annotations

import inspect
import logging
from typing import Any, TypeGuard

from upweight.core.attributor import Attributor
from upweight.core.capability_checks import can
from upweight.core.examples import Examples
from upweight.core.model import Differentiable, Embeddable, Measurable, Retrainable
from upweight.core.plugins import METHODS, plugins
from upweight.core.refittable import Refittable
from upweight.core.tree_based import Averaged, TreeBased
from upweight.core.weights import weighted_positions
from upweight.methods import built_in
from upweight.methods.boostin import BoostIn
from upweight.methods.forest_weights import ForestWeights
from upweight.methods.influence import Influence
from upweight.methods.knn_shapley import KNNShapley
from upweight.methods.leaf_influence import LeafInfluence
from upweight.methods.leaf_refit import LeafRefit
from upweight.methods.leave_one_out import LeaveOneOut
from upweight.methods.shortlist_leave_one_out import RANDOM_RUNS, ShortlistLeaveOneOut
from upweight.methods.tree_sim import TreeSim

MAX_REFITS_OF_A_TREE = 500  # they take some seconds
GRADIENTS_PER_MINUTE = 4e9  # of LeafRefit, counted as removals × examples × trees
REFIT_SECONDS = 20.0  # that refits of a model may take if the user names no method
MIN_REFITS = 8  # fewer than this in that time are refused

log = logging.getLogger("upweight")


def methods() -> dict[str, type[Attributor]]:
    """Name → recipe class of every method: the built-in ones as `built_in` orders them, then those of plugins.

    A plugin that cannot be used gives a UserWarning (see `core/plugins.py`).
    """
    recipes = {recipe.__module__.rpartition(".")[2]: recipe for recipe in vars(built_in).values() if _is_method(recipe)}
    installed = plugins(METHODS, frozenset(recipes), _misfit)
    return recipes | {name: plugin.loaded for name, plugin in installed.items()}


def _is_method(candidate: Any) -> TypeGuard[type[Attributor]]:
    return isinstance(candidate, type) and issubclass(candidate, Attributor) and not inspect.isabstract(candidate)


def _misfit(plugin: Any) -> str | None:
    """Why this object is not a method; None if it is."""
    if _is_method(plugin):
        return None
    return f"expected a subclass of upweight.Attributor that implements all its abstract methods, got {plugin!r}"


def first_choice(model: Measurable, train: Examples) -> Attributor:
    """The method to try first on this model: one whose scores are effects if that takes a minute, else a ranking."""
    if isinstance(model, Refittable):
        return _within_budget(model, train)
    if not isinstance(model, TreeBased):
        return _without_trees(model)
    grown = model.grown(train)
    if can(model, Averaged):
        # Effects on a single tree are those of its splits, which only trainings follow; an average has many splits.
        if model.trees().trees == 1 and len(train) <= MAX_REFITS_OF_A_TREE and can(model, Retrainable):
            return LeaveOneOut()
        return ForestWeights() if grown.exact else TreeSim()
    work = len(train) ** 2 * model.trees().trees
    if grown.exact and work <= GRADIENTS_PER_MINUTE:
        return LeafRefit()
    return LeafInfluence() if grown.has_derivatives else BoostIn()


def _without_trees(model: Measurable) -> Attributor:
    """Influence if the model has gradients, else what its capabilities allow."""
    if can(model, Differentiable) or not (can(model, Retrainable) or can(model, Embeddable)):
        return Influence()
    return LeaveOneOut() if can(model, Retrainable) else KNNShapley()


def _within_budget(model: Refittable, train: Examples) -> Attributor:
    """Leaving out each example if that takes `REFIT_SECONDS`, else a shortlist.

    Raises ValueError if one refit takes so long that hardly any fits into this time.
    """
    trial = model.trial(train)
    affordable = int(min(REFIT_SECONDS / max(trial.seconds, 1e-6), 1e6))
    runs = RANDOM_RUNS if trial.is_random else 1
    needed = runs * (len(weighted_positions(train)) + 1)
    if affordable >= needed:
        return ShortlistLeaveOneOut(seeds=runs)
    if affordable < MIN_REFITS:
        raise ValueError(
            f"one refit of this model takes {trial.seconds:,.1f} s, so leaving out each example would take about "
            f"{trial.seconds * needed / 60:,.0f} minutes, and {MIN_REFITS} refits more than {REFIT_SECONDS:.0f} s; "
            f"pass the budget that you accept, e.g. recipe=uw.ShortlistLeaveOneOut(refits={runs * MIN_REFITS}), or "
            "explain a model of fewer examples"
        )
    log.info("%s of %s refits fit into %.0f s", f"{affordable:,}", f"{needed:,}", REFIT_SECONDS)
    return ShortlistLeaveOneOut(refits=max(affordable, 2 * runs), seeds=runs)

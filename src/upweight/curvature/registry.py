"""Fit the curvature that a recipe names, for a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from upweight.core.curvature import Curvature
from upweight.core.curvature_recipes import (
    EKFAC,
    KFAC,
    CurvatureRecipe,
    DataInf,
    Diagonal,
    EmpiricalFisher,
    GaussNewton,
    Hessian,
    Identity,
    WithinBudget,
)
from upweight.core.examples import Examples
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.budget import CANDIDATES, candidates_within
from upweight.curvature.damping import DATAINF_DAMPING_FROM, choose_damping
from upweight.curvature.diagonal import FittedDiagonal
from upweight.curvature.ekfac import FittedEKFAC
from upweight.curvature.fisher import FittedFisher, TooManyExamplesError
from upweight.curvature.identity import FittedIdentity
from upweight.curvature.limits import DEFAULT_LIMITS, Limits
from upweight.curvature.no_curvature import NoCurvatureError, require_curved_loss
from upweight.curvature.optimum import NONE_AT_OPTIMUM, is_at_optimum
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.functional import SecondDerivativeError
from upweight.gradients.outputs import NoOutputsError

HESSIAN_AT_OPTIMUM = (
    "The net is at an optimum, where its exact Hessian is positive definite, and GaussNewton() is not close to that"
)
_KINDS = {  # recipe → the class that is fitted
    GaussNewton: "FittedGaussNewton",
    Hessian: "FittedHessian",
    EmpiricalFisher: "FittedFisher",
    DataInf: "FittedDataInf",
    KFAC: "FittedEKFAC",
    EKFAC: "FittedEKFAC",
    Diagonal: "FittedDiagonal",
    Identity: "FittedIdentity",
}


def build(
    model: Any,
    train: Examples,
    recipe: CurvatureRecipe | None,
    damping: float | None,
    limits: Limits = DEFAULT_LIMITS,
) -> Curvature:
    """The curvature of a model on these examples.

    Args:
        model: has a `network`, an `objective`, sample `weights`, and the `whole` training set if `train` is a part.
        train: the training examples.
        recipe: names the curvature. None is the loss's `default_curvature` if it has one, else `WithinBudget()`: the
            best one that is possible for this net and loss and that a budget allows.
        damping: on the scale of the mean loss. None chooses it from the model's `training_time` if there is one, else
            from the spectrum; `diagnostics` reports which.
        limits: sizes up to which exact forms are used.

    Raises:
        NoOutputsError, SecondDerivativeError: the curvature of the recipe is impossible for this net and loss; the
            message names those that are possible.
    """
    if recipe is None:
        return _build_default(model, train, damping, limits)
    if isinstance(recipe, WithinBudget):
        return _build_within(model, train, recipe, damping, limits)
    if not damping and isinstance(recipe, GaussNewton | Hessian | KFAC | EKFAC):
        _require_curved_loss(_undamped(model, train, limits), recipe)
    try:
        return _build(model, train, recipe, damping, limits)
    except NoOutputsError as error:
        raise NoOutputsError(
            f"{error}. {type(recipe).__name__}() needs that; use curvature=EmpiricalFisher(), DataInf(), Hessian(), "
            "Diagonal() or Identity()"
        ) from error


def _require_curved_loss(undamped: SummedObjective, recipe: CurvatureRecipe) -> None:
    """Raise NoCurvatureError if nothing but an l2 could be inverted, or a Hessian that misses the kinks of the loss."""
    try:
        require_curved_loss(undamped)
    except NoCurvatureError as error:
        raise NoCurvatureError(
            f"{error}, so {type(recipe).__name__}() would not know the data; use curvature=EmpiricalFisher(), "
            "DataInf() or Identity(), or give a damping (the scores are a ranking then)"
        ) from error
    except (NoOutputsError, SecondDerivativeError):  # what is impossible is said where the curvature is built
        return


def first_choice(summed: SummedObjective, recipe: CurvatureRecipe | None) -> CurvatureRecipe:
    """The curvature that `build` tries first for this recipe."""
    preferred: CurvatureRecipe | None = getattr(summed.network.loss, "default_curvature", None)
    if recipe is None and preferred is not None and summed.network.size > summed.limits.dense_parameters:
        return preferred
    if recipe is None or isinstance(recipe, WithinBudget):
        return candidates_within(summed, recipe or WithinBudget())[0][0]
    return recipe


def restore(
    model: Any, train: Examples, recipe: CurvatureRecipe | None, state: SavedState, limits: Limits = DEFAULT_LIMITS
) -> Curvature:
    """The curvature whose `state` was saved. Raises ValueError if the state does not fit the recipe and the net."""
    summed = _undamped(model, train, limits).with_choice(state.facts["chosen"])
    possible = (*CANDIDATES, Hessian()) if recipe is None or isinstance(recipe, WithinBudget) else (recipe,)
    kinds = {_KINDS[type(candidate)]: candidate for candidate in possible if type(candidate) in _KINDS}
    if state.facts["kind"] not in kinds:
        raise ValueError(f"expected a curvature of the kind {' or '.join(kinds)}, got {state.facts['kind']}")
    return _fitted(summed, kinds[state.facts["kind"]], state.part("fitted"))


def _build_default(model: Any, train: Examples, damping: float | None, limits: Limits) -> Curvature:
    """The `default_curvature` of the loss for a net that is too large for a matrix; else the best within a budget."""
    preferred = getattr(model.network.loss, "default_curvature", None)
    if preferred is None or model.network.size <= limits.dense_parameters:
        return _build_within(model, train, WithinBudget(), damping, limits)
    note = (
        f"Without curvature=, {type(preferred).__name__}() is used: GaussNewton() needs products with every sequence "
        "in each step of its solver."
    )
    return _build(model, train, preferred, damping, limits, (note,))


def _build_within(
    model: Any, train: Examples, budget: WithinBudget, damping: float | None, limits: Limits
) -> Curvature:
    """The best curvature within the budget; if it is impossible, the next one, with a note that says why."""
    reason: Exception | None = None
    undamped = _undamped(model, train, limits)
    candidates, first = candidates_within(undamped, budget), ""
    for recipe, why in candidates:
        name = type(recipe).__name__
        choice, notes = why, tuple[str, ...]()
        if isinstance(reason, NoCurvatureError) and isinstance(recipe, EKFAC | KFAC):
            continue  # they approximate the Gauss–Newton matrix, so they do not help if that is zero
        if reason is not None:
            choice = (
                f"The default curvature, {first}(), is impossible for this net and loss, so {name}() is used: {reason}"
            )
            notes = (choice,)
        try:
            if isinstance(recipe, GaussNewton | KFAC | EKFAC):
                require_curved_loss(undamped)
            curvature = _build(model, train, recipe, damping, limits, notes, choice)
            if curvature.diagnostics["damping_from"] == NONE_AT_OPTIMUM and not curvature.calibrated:
                return _build(model, train, Hessian(), damping, limits, notes, HESSIAN_AT_OPTIMUM)
            return curvature
        except (NoOutputsError, SecondDerivativeError, NoCurvatureError, TooManyExamplesError) as error:
            reason, first = reason or error, first or name
    assert reason is not None
    raise reason


def _build(
    model: Any,
    train: Examples,
    recipe: CurvatureRecipe,
    damping: float | None,
    limits: Limits,
    notes: tuple[str, ...] = (),
    choice: str = "",
) -> Curvature:
    summed = objective_of(model, train, recipe, damping, limits, notes)
    return _fitted(replace(summed, choice=choice), recipe)


def objective_of(
    model: Any,
    train: Examples,
    recipe: CurvatureRecipe,
    damping: float | None,
    limits: Limits = DEFAULT_LIMITS,
    notes: tuple[str, ...] = (),
) -> SummedObjective:
    """The training objective with its damping, unless the recipe chooses that from its own eigenvalues."""
    summed = replace(_undamped(model, train, limits), notes=notes)
    if damping is None and isinstance(recipe, GaussNewton | Hessian) and is_at_optimum(summed):
        summed = replace(summed, damping_from=NONE_AT_OPTIMUM)
    elif damping is None:
        summed = choose_damping(summed, recipe, model.training_time(train if model.whole is None else model.whole))
    else:
        summed = replace(summed, damping=damping * summed.total, damping_from="as given")
    return summed


def _undamped(model: Any, train: Examples, limits: Limits) -> SummedObjective:
    """The training objective on the examples that the parameters act on."""
    weights, whole_weights = model.weights(train), model.weights(train if model.whole is None else model.whole)
    summed = SummedObjective.of(model.network, train, weights, model.objective.ridge(whole_weights), limits)
    return replace(summed, weight_without_gradient=float(whole_weights.sum() - weights.sum()))


def _fitted(summed: SummedObjective, recipe: CurvatureRecipe, saved: SavedState = NOTHING_SAVED) -> Curvature:
    match recipe:
        case KFAC() | EKFAC():
            most = recipe.eigenvalue_examples if isinstance(recipe, EKFAC) else None
            return FittedEKFAC(summed, isinstance(recipe, EKFAC), saved, eigenvalue_examples=most)
        case DataInf():
            from upweight.curvature.datainf import LAYER_SHARE, FittedDataInf

            return FittedDataInf(summed, LAYER_SHARE if summed.damping_from == DATAINF_DAMPING_FROM else None, saved)
        case Hessian():
            from upweight.curvature.hessian import FittedHessian

            return FittedHessian(summed, recipe, summed.damping_from, saved)
        case GaussNewton():
            from upweight.curvature.gauss_newton import FittedGaussNewton

            return FittedGaussNewton(summed, recipe, summed.damping_from, saved)
        case Identity():
            return FittedIdentity(summed)
    simple: dict[type, Any] = {Diagonal: FittedDiagonal, EmpiricalFisher: FittedFisher}
    if type(recipe) not in simple:
        raise TypeError(f"expected a curvature recipe (GaussNewton(), EKFAC(), …), got {recipe!r}")
    fitted: Curvature = simple[type(recipe)](summed, saved)
    return fitted

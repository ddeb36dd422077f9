"""Forget training examples: a usable estimator without them, and a certificate of what that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.forgotten import Distance, Forgotten
from upweight.applications.membership import MembershipCheck
from upweight.core.attributor import Attributor
from upweight.core.capability_checks import can, require
from upweight.core.contents import UnidentifiedError
from upweight.core.examples import Examples, Id
from upweight.core.forgettable import Forgettable, ForgottenStep, Route, Unlearned
from upweight.core.identity import digest
from upweight.core.library_calls import with_gradients
from upweight.core.model import Differentiable, Measurable, Parametric, Retrainable
from upweight.core.weights import require_part
from upweight.methods.influence import Influence
from upweight.methods.parts.fitted_influence import FittedInfluence
from upweight.models.wrappers import held_choices
from upweight.retraining.retrain import retrain
from upweight.trees.leaf_values_without import same_partitions
from upweight.trees.model import TreeModel

Array = NDArray[np.float64]
MEASURED = 2000  # remaining examples whose distance to retraining is measured
NOT_AT_OPTIMUM = 1e-6  # gradient norm at the end of Newton steps from which the result has a warning


@with_gradients()
def forget(
    model: Measurable,
    train: Examples,
    ids: Sequence[Id],
    *,
    unseen: Examples | None = None,
    refit: bool = False,
    compare: bool | None = None,
    step: Attributor | None = None,
) -> Forgotten:
    """An estimator of the user's own class without these training examples, and a certificate of what it is.

    Linear models go to the exact optimum without the examples, and estimators with a closed form are computed without
    them, with the steps of their pipelines refitted: a deletion, in a fraction of the time of a refit. The leaf values
    of trees are computed without the examples, with splits as they were, and networks take an influence step: neither
    is a deletion, and the distance to a retrained model is measured. Everything else is trained again. The user's own
    estimator does not change.

    Args:
        model: the model of the estimator (`explainable`, `TorchModel`).
        train: its training set.
        ids: of the training examples to forget.
        unseen: labelled examples that no training saw, for the check of membership; None for no check.
        refit: train again in any case, which is a deletion for trees and networks too.
        compare: whether to retrain without the examples, to measure the distance; None to do so only if the result is
            no deletion and the model can be retrained.
        step: the method of the step of a network, an `Influence`; None for `Influence()`.

    Raises:
        KeyError: the training set does not have an id.
        ValueError: no ids, or all of them; a class that would be lost; unseen examples without labels.
        TypeError: a model from which no estimator can be made, such as a network without `training` with `refit=True`.
    """
    require(model, [Measurable], "forget", train)
    if isinstance(ids, str):
        raise TypeError(f"expected ids as a list, got the text {ids!r}; pass [{ids!r}]")
    if not isinstance(ids, Iterable):
        raise TypeError(f"expected ids as a list, got {ids!r}; pass [{ids!r}]")
    positions = np.unique(train.positions(list(ids)))
    require_part(train, "to forget", positions)
    remaining = np.ones(len(train), dtype=bool)
    remaining[positions] = False
    check = MembershipCheck.of(model, train, train.take(positions), unseen)
    unlearned = _unlearned(model, train, remaining, refit, step)
    comparison = _compared(model, train, remaining, check, unlearned, compare)
    states = [("before", model), ("after", unlearned.model), ("retrained", comparison.retrained)]
    checked = [check.measured(name, state) for name, state in states if state is not None]
    return Forgotten(
        estimator=unlearned.estimator,
        model=unlearned.model,
        ids=tuple(train.ids[positions].tolist()),
        route=unlearned.route,
        steps=(*_held(model), *unlearned.steps),
        membership=tuple(one for one in checked if one is not None),
        distances=comparison.distances,
        facts={**unlearned.facts, **(comparison.facts or {})},
        digests=_digests(model, unlearned, train, positions),
        measurement=model.measurement,
        train=train,
        diagnostics={
            "warnings": [*check.warnings, *_warnings(unlearned)],
            "notes": [*unlearned.notes, *check.notes, *comparison.notes],
        },
    )


def _unlearned(
    model: Measurable, train: Examples, remaining: NDArray[np.bool_], refit: bool, step: Attributor | None
) -> Unlearned:
    """The estimator without the examples, by the route that suits the model."""
    takes_step = isinstance(model, Differentiable) and not getattr(model, "converges", True)
    if takes_step and not refit:
        return _stepped(model, train, remaining, step)
    if step is not None:
        raise TypeError(
            f"step= is for networks, got a {type(model).__name__}{' with refit=True' * refit}; leave it out"
        )
    require(model, [Forgettable], "forget", train)
    assert isinstance(model, Forgettable)
    return model.forget(train, remaining, refit=refit)


def _stepped(model: Any, train: Examples, remaining: NDArray[np.bool_], step: Attributor | None) -> Unlearned:
    """One influence step from the parameters of the model."""
    recipe = Influence() if step is None else step
    require(model, [Differentiable, Parametric], "forget", train)
    fitted = recipe.fit(model, train)
    if not isinstance(fitted, FittedInfluence):
        raise TypeError(f"expected step= to be an Influence, got {type(recipe).__name__}")
    if recipe.described().get("modules") is not None:
        raise ValueError("expected a step of all parameters, got an Influence of some modules; leave out modules=")
    shift = fitted.step_without(~remaining[None])[0]
    moved = model.with_parameters(model.parameters + shift)
    estimator = moved.estimator if isinstance(moved, Forgettable) else moved
    kind = type(estimator).__name__
    size = float(np.linalg.norm(shift) / max(float(np.linalg.norm(model.parameters)), 1e-300))
    remembers = "its parameters are estimates of those of a retrained model, and hold traces of these examples"
    how = f"one step of {type(recipe).__name__}"
    return Unlearned(
        estimator, moved, Route.STEP, (ForgottenStep(kind, kind, how, remembers),), {"relative_step": size}
    )


@dataclass(frozen=True)
class _Comparison:
    """A model that was retrained without the examples; None if there is none."""

    retrained: Any = None
    distances: tuple[Distance, ...] = ()
    facts: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def _compared(
    model: Measurable,
    train: Examples,
    remaining: NDArray[np.bool_],
    check: MembershipCheck,
    unlearned: Unlearned,
    compare: bool | None,
) -> _Comparison:
    """The distance to a retrained model, measured on the forgotten, the remaining and the unseen examples."""
    if compare is False or (compare is None and unlearned.route.is_deletion):
        return _Comparison()
    if not can(model, Retrainable):
        if compare:
            require(model, [Retrainable], "compare=True")
        return _Comparison(notes=("The distance to retraining was not measured: this model cannot be retrained.",))
    retrained: Any
    if isinstance(model, Forgettable) and can(model, Forgettable):
        retrained = model.forget(train, remaining, refit=True).model
    else:
        retrained = retrain(model, train, remaining.astype(np.float64))
    sample = np.flatnonzero(remaining)
    sample = sample[:: max(1, len(sample) // MEASURED)]
    parts = [("forgotten", check.forgotten), ("remaining", train.take(sample))]
    parts += [] if check.unseen is None else [("unseen", check.unseen)]
    distances = tuple(_distance(name, examples, model, unlearned.model, retrained) for name, examples in parts)
    return _Comparison(retrained, distances, _structure(unlearned.model, retrained, train.take(remaining)))


def _distance(part: str, examples: Examples, before: Any, after: Any, retrained: Any) -> Distance:
    target = retrained.measure(examples)
    distances = [float(np.sqrt(np.mean((model.measure(examples) - target) ** 2))) for model in (before, after)]
    return Distance(part, len(examples), *distances)


def _structure(after: Any, retrained: Any, examples: Examples) -> dict[str, Any]:
    """How many trees put the remaining examples together in another way than those of a retrained ensemble."""
    if isinstance(after, TreeModel) and isinstance(retrained, TreeModel):
        is_same = same_partitions(after.leaves(examples), retrained.leaves(examples))
        return {"trees": len(is_same), "trees_split_otherwise": int((~is_same).sum())}
    if isinstance(after, Parametric) and isinstance(retrained, Parametric):
        target = retrained.parameters
        if target.shape == after.parameters.shape:
            away = float(np.linalg.norm(after.parameters - target))
            return {"parameters_from_retraining": away / max(float(np.linalg.norm(target)), 1e-300)}
    return {}


def _held(model: Any) -> tuple[ForgottenStep, ...]:
    """The settings that wrappers around the estimator chose with all training examples."""
    return tuple(
        ForgottenStep("settings", type(model).__name__, "kept", note.rstrip(".")) for note in held_choices(model.notes)
    )


def _warnings(unlearned: Unlearned) -> list[str]:
    norm = unlearned.facts.get("gradient_norm", 0.0)
    if unlearned.route is not Route.OPTIMUM or norm <= NOT_AT_OPTIMUM:
        return []
    return [
        f"Newton steps ended at a gradient norm of {norm:.2g}, which is not the optimum: the data hardly determine the "
        "parameters; compare=True measures the distance to a refit, refit=True trains again."
    ]


def _digests(model: Any, unlearned: Unlearned, train: Examples, positions: NDArray[np.intp]) -> dict[str, str | None]:
    """Digests by which another process recognises the estimators (`uw.digest(estimator)`), the data and the ids."""
    return {
        "estimator_before": _digest(getattr(model, "estimator", model)),
        "estimator_after": _digest(unlearned.estimator),
        "train": _digest(train.x, train.y, train.ids, train.weights),
        "ids": _digest(train.ids[positions].tolist()),
    }


def _digest(*parts: Any) -> str | None:
    """A digest; None for something whose contents cannot be compared."""
    try:
        return digest(*parts)
    except UnidentifiedError:
        return None

"""Checks that a model has the capabilities that a method or an application needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from upweight.core.examples import Examples, require_examples
from upweight.core.model import Measurable, Retrainable
from upweight.core.weights import require_any_weight


def can(model: Any, capability: type) -> bool:
    """Whether the model has this capability."""
    return isinstance(model, capability) and (not isinstance(model, Measurable) or model.lacks(capability) is None)


def why_not_verified(model: Any) -> str:
    """Why a model that cannot be retrained was not, and what to pass so that it can be, as a sentence."""
    reason = model.lacks(Retrainable) if isinstance(model, Measurable) and isinstance(model, Retrainable) else None
    return f"Nothing was verified: {reason or f'this {type(model).__name__} cannot be retrained'}."


def require(model: Any, capabilities: Sequence[type], wanted_by: str, *examples: Examples) -> None:
    """Raise TypeError if the model lacks a capability or `examples` are not Examples; the message says what to do.

    The first of `examples` is the training set: raises ValueError if all its weights are zero.
    """
    missing = [c.__name__ for c in capabilities if not isinstance(model, c)]
    if missing:
        advice = "wrap a fitted estimator with upweight.explainable(estimator, train) first"
        if isinstance(model, Measurable):
            advice = "this model does not have these capabilities; `upweight methods` lists other methods"
        raise TypeError(
            f"{wanted_by} needs a model that is {' and '.join(missing)}, got {type(model).__name__}; {advice}"
        )
    for capability in capabilities:
        reason = model.lacks(capability)
        if reason is not None:
            raise TypeError(f"{wanted_by} needs a model that is {capability.__name__}: {reason}")
    for argument in examples:
        require_examples(argument)
    if examples:
        require_any_weight(examples[0])


def require_reads_examples(model: Any, wanted_by: str) -> None:
    """Raise TypeError if retraining the model would not use changed labels or inputs."""
    if isinstance(model, Retrainable) and not model.reads_examples:
        raise TypeError(
            f"{wanted_by} changes labels or inputs, and the training function of this {type(model).__name__} takes "
            "weights only: it would train on the old data; pass training=uw.Training(…), or only remove and reweight"
        )


def with_requirements(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the `fit` of a recipe so that it first checks the model (for `recipe.needs`) and the training set."""

    @wraps(fit)
    def checked_fit(recipe: Any, model: Any, train: Examples, *args: Any, **kwargs: Any) -> Any:
        require(model, recipe.needs, type(recipe).__name__, train)
        return fit(recipe, model, train, *args, **kwargs)

    return checked_fit

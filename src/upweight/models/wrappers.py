"""Wrappers that are read through: the fitted estimator inside a search, a threshold or another pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from upweight.models.pipeline import last_step

SEARCH_NOTE = (
    "{outer} chose {settings}, which is held fixed: removals do not change the choice. To search again in every "
    "retraining, pass uw.refittable({outer} object, train)."
)
THRESHOLD_NOTE = (
    "The threshold of {outer} is held fixed. Losses are of probabilities, which it does not change; predicted labels "
    "are those of the {inner} inside it, without the threshold."
)
# Class of a wrapper → (attribute with the fitted estimator inside, note for the reader of scores).
INNER = {
    "FrozenEstimator": ("estimator", "The frozen {inner} is explained as it was trained."),
    "FixedThresholdClassifier": ("estimator_", THRESHOLD_NOTE),
    "TunedThresholdClassifierCV": ("estimator_", THRESHOLD_NOTE),
    "TransformedTargetRegressor": ("regressor_", "{outer} does not transform the target here."),
}
HELD_CHOICES = (
    ", which is held fixed: removals do not change the choice",
    "is held fixed. Losses are of probabilities",
)
MAX_SETTINGS = 100  # characters of the chosen settings in a note


def read_through(estimator: Any) -> tuple[Any, tuple[str, ...]]:
    """The fitted estimator inside all wrappers, and a note for each wrapper. Pipelines in pipelines become one.

    An estimator without such wrappers comes back as it is.
    """
    inner, notes = _inside(estimator)
    if inner is not estimator:
        inner, deeper = read_through(inner)
        return inner, (*notes, *deeper)
    final = last_step(estimator)
    if final is estimator:
        return estimator, ()
    inner, notes = read_through(final)
    if inner is final and not hasattr(final, "steps"):
        return estimator, ()
    from sklearn.pipeline import Pipeline

    steps = [(f"before {name}", step) for name, step in estimator.steps[:-1]]
    steps += inner.steps if hasattr(inner, "steps") else [("estimator", inner)]
    return Pipeline(steps), notes


def held_choices(notes: Iterable[str]) -> list[str]:
    """The notes of a model that are about something that a wrapper chose with its training examples."""
    return [note for note in notes if any(held in note for held in HELD_CHOICES)]


def _inside(wrapper: Any) -> tuple[Any, tuple[str, ...]]:
    """The fitted estimator directly inside this wrapper, with a note; the wrapper itself if it is not read through."""
    outer = type(wrapper).__name__
    if hasattr(wrapper, "best_estimator_") and hasattr(wrapper, "best_params_"):
        settings = ", ".join(f"{name}={value!r}" for name, value in wrapper.best_params_.items())[:MAX_SETTINGS]
        return wrapper.best_estimator_, (SEARCH_NOTE.format(outer=outer, settings=settings or "no setting"),)
    if outer not in INNER or not _is_fitted_on_everything(wrapper):
        return wrapper, ()
    attribute, note = INNER[outer]
    inner = getattr(wrapper, attribute)
    name = type(last_step(inner)).__name__
    return inner, (note.format(outer=outer, inner=name),)


def _is_fitted_on_everything(wrapper: Any) -> bool:
    """Whether the estimator inside was fitted, on all examples and on targets that were not transformed."""
    attribute, _ = INNER[type(wrapper).__name__]
    if not hasattr(wrapper, attribute):
        return False
    settings = wrapper.get_params(deep=False)
    is_transformed = any(settings.get(name) is not None for name in ("transformer", "func", "inverse_func"))
    is_partial = settings.get("refit") is False or settings.get("cv") == "prefit"
    return not is_transformed and not is_partial

"""Refit an estimator of scikit-learn without some training examples, and record what its steps still hold of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.forgettable import ForgottenStep
from upweight.core.input_kinds import take_rows
from upweight.core.weights import sample_weights
from upweight.models.estimator_clones import unfitted_clone
from upweight.models.pipeline import last_step, steps_before

FROZEN = "FrozenEstimator"
REFITTED = "refitted"


def refit_estimator(
    estimator: Any, train: Examples, remaining: NDArray[np.bool_], seed: int, fixed: Mapping[str, Any] | None = None
) -> tuple[Any, tuple[ForgottenStep, ...]]:
    """A clone of the whole estimator, all steps of a pipeline included, fitted on the remaining examples.

    Args:
        estimator: fitted; it does not change.
        train: the training set.
        remaining: (n,) which examples to fit.
        seed: for steps without a seed of their own.
        fixed: settings of the last step to keep at the values that its training chose.

    Raises:
        ValueError: it cannot be fitted on these examples; or it takes no sample weights, and some are no whole number.
    """
    rows, keywords = _weighted_rows(estimator, train, np.flatnonzero(remaining))
    given = train.with_column()
    clone, unseeded = seeded_clone(estimator, seed, fixed or {})
    try:
        fitted = clone.fit(take_rows(given.x, rows), None if given.y is None else given.y[rows], **keywords)
    except Exception as error:  # an estimator may raise anything
        raise ValueError(
            f"this {type(last_step(estimator)).__name__} cannot be fitted without these examples "
            f"({type(error).__name__}: {error}); forget fewer"
        ) from error
    if unseeded:
        fitted.set_params(**unseeded)
    return fitted, step_records(estimator, REFITTED)


def _weighted_rows(
    estimator: Any, train: Examples, rows: NDArray[np.intp]
) -> tuple[NDArray[np.intp], dict[str, NDArray[np.float64]]]:
    """(rows to fit, the keyword of `fit` with their weights, if they are not all 1)."""
    from sklearn.utils.validation import has_fit_parameter

    weights = sample_weights(train)[rows]
    rows, weights = rows[weights > 0], weights[weights > 0]
    if (weights == 1).all():
        return rows, {}
    final = last_step(estimator)
    if has_fit_parameter(final, "sample_weight"):
        prefix = "" if final is estimator else f"{estimator.steps[-1][0]}__"
        return rows, {f"{prefix}sample_weight": weights}
    if (weights != np.round(weights)).any():
        raise ValueError(
            f"fit of this {type(final).__name__} takes no sample weights, so that a weight has to be a whole number of "
            f"copies, got {weights[weights != np.round(weights)][0]:g}; pass whole weights, or none"
        )
    return np.repeat(rows, weights.astype(np.intp)), {}


def seeded_clone(estimator: Any, seed: int, fixed: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(an unfitted clone with this seed in steps without one of their own, the settings that remove it again).

    `fixed` are settings of its last step.
    """
    clone = unfitted_clone(estimator, None)
    unseeded = {name: None for name, value in clone.get_params().items() if _is_seed(name) and value is None}
    if unseeded:
        clone.set_params(**dict.fromkeys(unseeded, seed))
    final = last_step(clone)
    final.set_params(**{name: value for name, value in fixed.items() if name in final.get_params(deep=False)})
    return clone, unseeded


def _is_seed(name: str) -> bool:
    return name.rpartition("__")[2] == "random_state"


def refit_steps(estimator: Any, remaining: Examples, seed: int) -> tuple[Any, Any]:
    """(the steps before the last one, refitted on these examples; the transformed inputs). (None, x) without steps."""
    steps = steps_before(estimator)
    if steps is None:
        return None, remaining.x
    clone, unseeded = seeded_clone(steps, seed, {})
    given = remaining.with_column()
    matrix = clone.fit_transform(given.x, given.y)
    if unseeded:
        clone.set_params(**unseeded)
    return clone, matrix


def with_last_step(estimator: Any, steps: Any, final: Any) -> Any:
    """The pipeline of these steps and this last one; the last one itself if there are none."""
    if final is None or not hasattr(estimator, "steps"):
        return final
    before = [] if steps is None else list(steps.steps)
    return type(estimator)([*before, (estimator.steps[-1][0], final)])


def step_records(estimator: Any, how: str, last: str | None = None) -> tuple[ForgottenStep, ...]:
    """One record per step of the estimator: what was done to it, and what it remembers.

    Args:
        estimator: the pipeline, or an estimator alone.
        how: what was done to every step.
        last: what was done to the last one, if that differs.
    """
    steps = steps_of(estimator)
    records = []
    for name, step in steps:
        is_last = step is steps[-1][1]
        done = last if last is not None and is_last else how
        records.append(ForgottenStep(name, type(step).__name__, done, _frozen_inside(step)))
    return tuple(records)


def steps_of(estimator: Any) -> Sequence[tuple[str, Any]]:
    """(name, step) of a pipeline; (class, estimator) of an estimator alone."""
    steps: Sequence[tuple[str, Any]] = getattr(estimator, "steps", None) or [(type(estimator).__name__, estimator)]
    return steps


def is_fitted(step: Any) -> bool:
    """Whether a step holds anything that it learnt."""
    return (
        any(name.endswith("_") and not name.startswith("__") for name in vars(step)) if hasattr(step, "fit") else False
    )


def _frozen_inside(step: Any) -> str | None:
    """A sentence if an estimator was frozen, so that refitting leaves it as it was fitted; else None."""
    inside = [step, *(step.get_params(deep=True).values() if hasattr(step, "get_params") else ())]
    frozen = next((part for part in inside if type(part).__name__ == FROZEN), None)
    if frozen is None:
        return None
    return (
        f"the {type(frozen.estimator).__name__} inside it is frozen: refitting does not change it, and it may "
        "have been fitted on these examples"
    )

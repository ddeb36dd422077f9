"""A check that a linear model was fitted on these examples: on other data its parameters are not at an optimum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from upweight.linear.curvature import LinearCurvature
from upweight.linear.problem import Problem

OTHER_DATA = 0.25  # ‖∇J‖, relative to random-sign gradients, above which the model was fitted on other data
OTHER_DATA_HINGE = 0.9  # the same for the smoothed hinge, whose optimum is not exactly that of the hinge
ROUNDING = 1e-10  # relative to the scale of the data, below which residuals are rounding errors
AGREEMENT = 0.9  # share of training predictions in which an unfinished fit and its optimum must agree


def require_training_data(problem: Problem, name: str, is_hinge: bool, is_unfinished: bool) -> None:
    """Raise ValueError if a model was not fitted on these data, or fits them exactly.

    Args:
        problem: the training objective on the data, at the model's parameters.
        name: the estimator, for the message.
        is_hinge: the model was trained with the hinge, which the problem smooths.
        is_unfinished: the solver reported that it stopped before the optimum.
    """
    distance = problem.off_optimum
    if is_hinge:  # the problem may smooth the hinge strongly, but the model was trained with the hinge itself
        distance = min(distance, replace(problem, family=problem.family.sharp()).off_optimum)
    if problem.noise <= ROUNDING * problem.scale:
        raise ValueError(
            f"{name} fits its training data exactly: every residual is 0, so no example has an effect that can be "
            "traced; add l2 (Ridge(alpha=…), a smaller C) or examples"
        )
    if distance <= (OTHER_DATA_HINGE if is_hinge else OTHER_DATA):
        return
    if is_unfinished and _predicts_like_its_optimum(problem):
        return
    has_l2 = bool(problem.fixed or problem.each)
    raise ValueError(
        f"expected the data that {name} was fitted on: at these examples the gradient of its training "
        f"objective is {distance:.2g} of what random data would leave (0 = optimum). Pass the same rows, labels and "
        "sample weights as to fit(); if they are the same, the solver stopped too early (raise max_iter, lower tol)"
        + ("" if has_l2 else ", or there is no optimum: without l2, separable classes have none")
    )


def _predicts_like_its_optimum(problem: Problem) -> bool:
    """Whether an unfinished fit gives the same predictions on the training set as the optimum of its objective."""
    at_optimum = LinearCurvature(problem, None, 0.0).settled().problem.outputs
    fitted, optimal = problem.family.expand(problem.outputs), problem.family.expand(at_optimum)
    if problem.family.classes is None:
        return bool(np.corrcoef(fitted.ravel(), optimal.ravel())[0, 1] >= AGREEMENT)
    if fitted.shape[1] == 1:
        return bool(np.mean((fitted > 0) == (optimal > 0)) >= AGREEMENT)
    return bool(np.mean(fitted.argmax(axis=1) == optimal.argmax(axis=1)) >= AGREEMENT)

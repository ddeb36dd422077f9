"""A check that a linear model was fitted on these examples: on other data its parameters are not at an optimum."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from upweight.linear.curvature_choice import curvature_of
from upweight.linear.kink_gradients import off_optimum_of_kinks
from upweight.linear.losses.pinball import SmoothPinballLoss
from upweight.linear.missing_rows import HALF, Stopping, rows_are_missing, solver_gave_up
from upweight.linear.problem import Problem
from upweight.linear.quantile_curvature import require_optimal_quantiles

OTHER_DATA = 0.25  # ‖∇J‖, relative to random-sign gradients, above which the model was fitted on other data
OTHER_DATA_HINGE = 0.9  # the same for the smoothed hinge, whose optimum is not exactly that of the hinge
ROUNDING = 1e-10  # relative to the scale of the data, below which residuals are rounding errors
CONSTANT = 1e-2  # relative distance from a constant target up to which predictions equal it
AGREEMENT = 0.9  # share of training predictions in which an unfinished fit and its optimum must agree


@dataclass(frozen=True)
class SolverState:
    """What is known of how a model was trained.

    Attributes:
        name: the estimator, for messages.
        is_hinge: the model was trained with the hinge, which the problem smooths.
        is_unfinished: the solver reported that it stopped before the optimum.
        stopping: the gradient at which the solver stopped by itself; None if that is not known.
        at_optimum: the user accepts scores at the optimum, however far it is from an unfinished model.
    """

    name: str
    is_hinge: bool = False
    is_unfinished: bool = False
    stopping: Stopping | None = None
    at_optimum: bool = False


def require_training_data(problem: Problem, solver: SolverState) -> None:
    """Raise ValueError if a model was not fitted on these data, or fits them exactly.

    `problem` is the training objective on the data, at the model's parameters.
    """
    constant = _constant_fit(problem)
    if constant is not None:
        raise ValueError(
            f"{solver.name} was trained on targets that are all {constant:g} and predicts them: it does so whichever "
            "examples it has, so no example has an effect that can be traced; expected targets that differ"
        )
    if isinstance(problem.family, SmoothPinballLoss):  # at a kink the gradient of the smoothed loss says nothing
        require_optimal_quantiles(problem, solver.name)
        return
    distance, name = problem.off_optimum, solver.name
    if solver.is_hinge:  # the problem may smooth the hinge strongly, but the model was trained with the hinge itself
        distance = min(distance, replace(problem, family=problem.family.sharp()).off_optimum)
    if problem.noise <= ROUNDING * problem.scale:
        raise ValueError(
            f"{name} fits its training data exactly: every residual is 0, so no example has an effect that can be "
            "traced; add l2 (Ridge(alpha=…), a smaller C) or examples"
        )
    if distance <= (OTHER_DATA_HINGE if solver.is_hinge else OTHER_DATA):
        return
    if solver.is_hinge and off_optimum_of_kinks(problem) <= OTHER_DATA:  # few examples pull, and they are at kinks
        return
    if solver.is_unfinished and (solver.at_optimum or _predicts_like_its_optimum(problem)):
        return
    if solver.stopping is not None and solver.stopping.is_reached(problem) and _predicts_like_its_optimum(problem):
        return  # on columns far from 0, the gradient that a solver accepts is large about their means
    raise ValueError(
        f"expected the data that {name} was fitted on: at these examples the gradient of its training "
        f"objective is {distance:.2g} of what random data would leave (0 = optimum). {_advice(problem, solver)}"
    )


def _constant_fit(problem: Problem) -> float | None:
    """The number that all targets of a regression are, if they are equal and the model predicts them; else None."""
    if problem.family.classes is not None:
        return None
    targets = np.asarray(problem.targets, dtype=np.float64)[problem.weights > 0]
    first = float(targets.flat[0]) if targets.size else 0.0
    if not targets.size or (targets != first).any():
        return None
    predicted = np.asarray(problem.family.expand(problem.outputs), dtype=np.float64)[problem.weights > 0]
    return first if (np.abs(predicted - first) <= CONSTANT * max(abs(first), 1.0)).all() else None


def _advice(problem: Problem, solver: SolverState) -> str:
    """Advice for a model that is far from the optimum on its data."""
    pass_same = "Pass the same rows, labels and sample weights as to fit()"
    if solver.stopping is not None and solver.stopping.precision >= HALF:
        return (
            "It was fitted in half precision, which is too coarse for its optimum: fit it on x.astype(np.float64). If "
            f"it is near its optimum: {pass_same[0].lower()}{pass_same[1:]}"
        )
    if solver.stopping is not None and rows_are_missing(problem, solver.stopping):
        if solver.stopping.tolerance != 0.0 and solver_gave_up(problem):
            return (
                "Its solver seems to have given up far from the optimum: scale the features or use another solver, and "
                f"fit it again until it converges. If it did converge: {pass_same[0].lower()}{pass_same[1:]}"
            )
        return (
            f"Its solver stopped by itself, so rows may be missing, or others than in fit(). {pass_same}; if they are "
            "the same, the solver gave up early: scale the features, or use another solver"
        )
    advice = (
        f"{pass_same}; if they are the same, the solver stopped too early (scale the features, raise max_iter, lower "
    )
    advice += 'tol; or pass at="optimum" to explainable)' if solver.is_unfinished else "tol)"
    has_l2 = bool(problem.fixed or problem.each)
    return advice + ("" if has_l2 else ", or there is no optimum: without l2, separable classes have none")


def missing_rows(problem: Problem, name: str, stopping: Stopping | None) -> str | None:
    """The warning that rows seem to be missing; None if they do not."""
    if stopping is None or not rows_are_missing(problem, stopping):
        return None
    if stopping.tolerance != 0.0 and solver_gave_up(problem):
        return None
    return (
        f"Training rows may be missing here, or be others than in fit(): {name} itself had converged, and at these "
        "examples its gradient is larger than it left. Scores are those of a model trained on the rows given here; "
        "pass the same rows, labels and sample weights as to fit()."
    )


def _predicts_like_its_optimum(problem: Problem) -> bool:
    """Whether an unfinished fit gives the same predictions on the training set as the optimum of its objective."""
    at_optimum = curvature_of(problem, None, 0.0).reoptimised().problem.outputs
    fitted, optimal = problem.family.expand(problem.outputs), problem.family.expand(at_optimum)
    if problem.family.classes is None:
        return bool(np.corrcoef(fitted.ravel(), optimal.ravel())[0, 1] >= AGREEMENT)
    if fitted.shape[1] == 1:
        return bool(np.mean((fitted > 0) == (optimal > 0)) >= AGREEMENT)
    return bool(np.mean(fitted.argmax(axis=1) == optimal.argmax(axis=1)) >= AGREEMENT)

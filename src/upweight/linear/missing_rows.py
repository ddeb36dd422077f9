"""Whether training rows are missing: a solver that stopped by itself leaves no gradient as large as that of a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from upweight.linear.curvature import LinearCurvature
from upweight.linear.features import Features
from upweight.linear.problem import Array, Problem

BEYOND_TOLERANCE = 1.1  # gradient, in tolerances of the solver, that its solver would not have left
BEYOND_EXACT = 1e-7  # ‖∇J‖, relative to random-sign gradients, that no closed form leaves
BEYOND_EXACT_COARSE = 1e-3  # the same in single precision, or with as many columns as rows, often ill-conditioned
DOUBLE = float(np.finfo(np.float64).eps)
HALF = float(np.finfo(np.float16).eps)
BEYOND_STALLING = 1e-4  # the same for a solver that stops where the objective falls no more
STALLED = 5e-9  # distance to the lowest objective, relative to it, within which solvers may stall
STALLED_ROUNDINGS = 512.0  # the same in units of the precision, for single precision
PROGRESS = 0.9  # share of what can be gained over a constant prediction that a solver that converged has gained
ROUNDING = 100.0  # gradient that is a rounding error, in units of the precision and of the data's scale
SAME_ROW = 0.01  # relative error of a gradient to be that of one row


@dataclass(frozen=True)
class Stopping:
    """The gradient at which a solver stops by itself.

    Attributes:
        tolerance: of the gradient, in units of `scale`; 0 for a solution in closed form; None if the solver looks at
            something that says nothing of the gradient.
        scale: "weight" for its largest entry per unit of weight, "start" for a share of the gradient at θ = 0,
            "residuals" for a share of ‖X‖·‖residuals‖ (LSQR).
        precision: machine epsilon of its arithmetic.
        offset: (columns,) what the features of the problem lack of those of the solver; None for nothing.
    """

    tolerance: float | None
    scale: Literal["weight", "start", "residuals"] = "weight"
    precision: float = DOUBLE
    offset: Array | None = None

    def is_reached(self, problem: Problem) -> bool:
        """Whether the gradient on the features of the solver is within its tolerance, or where solvers may stall."""
        norm = self._norm(problem)
        if norm <= BEYOND_TOLERANCE * self._tolerated(problem):
            return True
        return self.offset is not None and norm <= BEYOND_STALLING * self._noise(problem, self.offset)

    def _tolerated(self, problem: Problem) -> float:
        """The norm of the gradient at which the solver stops."""
        if not self.tolerance:
            return 0.0
        if self.scale == "residuals":
            columns = float(problem.weights @ problem.features.squares()) + problem.ridge * problem.features.width
            residuals = 2.0 * _objective(problem)
            return self.tolerance * float(np.sqrt(columns * residuals))
        if self.scale == "start":
            return self.tolerance * self._norm(replace(problem, theta=np.zeros_like(problem.theta)))
        return self.tolerance * float(problem.weights.sum()) * float(np.sqrt(problem.size))

    @staticmethod
    def _noise(problem: Problem, offset: Array) -> float:
        """The noise of the problem, on the features of the solver."""
        features, slopes = problem.features, problem.derivatives.gradient * problem.weights[:, None]
        squares = features.squares() + 2.0 * (features.x @ offset) + offset @ offset
        return float(np.sqrt((slopes**2).sum(axis=1) @ squares))

    def _norm(self, problem: Problem) -> float:
        """The norm of the gradient on the features of the solver."""
        gradient = problem.gradient()
        if self.offset is not None:
            gradient[:, :-1] += self.offset * gradient[:, -1:] / problem.features.intercept
        return float(np.linalg.norm(gradient))


def rows_are_missing(problem: Problem, stopping: Stopping) -> bool:
    """Whether these cannot be the examples at which a solver stopped by itself.

    The gradient has to be larger than the solver's tolerance. Solvers also stop where rounding lets the objective fall
    no more, so in addition the objective has to be clearly above its minimum, or the gradient has to be that of one
    row: a multiple of features within the range of the data, by the residual that the model has there.
    """
    if stopping.is_reached(problem):
        return False
    norm = problem.off_optimum * problem.noise
    size = float(problem.weights @ problem.features.squares()) * float(np.linalg.norm(problem.theta))
    if norm <= ROUNDING * stopping.precision * size:
        return False
    if stopping.tolerance == 0.0:
        is_coarse = problem.features.columns >= len(problem.features) or stopping.precision > DOUBLE
        return norm > (BEYOND_EXACT_COARSE if is_coarse else BEYOND_EXACT) * problem.noise
    stalled = max(STALLED, STALLED_ROUNDINGS * stopping.precision)
    if stopping.tolerance is not None and norm > BEYOND_STALLING * problem.noise and _excess(problem) > stalled:
        return True
    return _is_gradient_of_one_row(problem)


def solver_gave_up(problem: Problem) -> bool:
    """Whether the parameters are hardly better than a constant prediction beside what one more Newton step gains.

    A solver whose line search fails stops by itself, far from the optimum. A model trained on more rows is not that
    much worse on those given here.
    """
    features = problem.features
    constant = Features(np.empty((len(features), 0)), features.intercept, features.penalised_intercept)
    start = replace(problem, features=constant, theta=problem.theta[:, features.columns :])
    lowest = LinearCurvature(start, None, 0.0).reoptimised().problem if features.intercept else None
    at_start = _objective(problem, zero=True) if lowest is None else _objective(lowest)
    gained, excess = at_start - _objective(problem), _excess(problem) * _size(problem)
    return not gained > PROGRESS * (gained + excess)


def _excess(problem: Problem) -> float:
    """How far the objective is above its minimum, to second order, relative to its size."""
    gradient = problem.gradient()
    step = LinearCurvature(problem, None, 0.0).solver.solve(gradient[None])[0]
    return 0.5 * float((gradient * step).sum()) / _size(problem)


def _size(problem: Problem) -> float:
    return max(abs(_objective(problem)), float(problem.weights.sum()))


def _objective(problem: Problem, zero: bool = False) -> float:
    """The training objective at the parameters, or at θ = 0."""
    at = replace(problem, theta=np.zeros_like(problem.theta)) if zero else problem
    penalty = 0.5 * at.ridge * float((at.theta * at.penalty_gradient(at.theta)).sum())
    return float(at.weights @ at.derivatives.loss) + penalty


def _is_gradient_of_one_row(problem: Problem) -> bool:
    """Whether adding one row of some class would make the gradient zero; False for models without an intercept.

    The column of the intercept has the residual of that row, and the other columns the row times the residual.
    """
    features, family = problem.features, problem.family
    if not features.intercept or family.classes is None:
        return False
    gradient = problem.gradient()
    strongest = gradient[np.linalg.norm(gradient, axis=1).argmax()]
    if strongest[-1] == 0.0:
        return False
    row = strongest * (features.intercept / strongest[-1])
    if not _is_within_range(problem, row):
        return False
    outputs = np.repeat(row[None] @ problem.theta.T, len(family.classes), axis=0)
    slopes = family.at(outputs, family.encode(family.classes)).gradient
    left = gradient[None] + slopes[:, :, None] * row
    return bool((np.linalg.norm(left, axis=(1, 2)) <= SAME_ROW * np.linalg.norm(gradient)).any())


def _is_within_range(problem: Problem, row: Array) -> bool:
    """Whether the row lies within twice the range of the training columns."""
    features = problem.features
    x = features.x[np.flatnonzero(problem.weights > 0)]
    ends = (x.min(0), x.max(0))
    low, high = (np.asarray(e.toarray() if hasattr(e, "toarray") else e, dtype=np.float64).ravel() for e in ends)
    slack = 0.5 * (high - low) + 1e-3 * np.maximum(np.abs(low), np.abs(high))
    values = row[: features.columns]
    return bool(((values >= low - slack) & (values <= high + slack)).all())

"""The curvature of a Huber regression, whose scale is estimated together with its coefficients."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lstsq

from upweight.core.curvature import NewtonSteps
from upweight.core.threads import one_thread
from upweight.linear.curvature import LinearCurvature
from upweight.linear.losses.huber import HuberLoss
from upweight.linear.problem import Problem
from upweight.linear.solver_choice import solver_for

Array = NDArray[np.float64]
MAX_STEPS = 100  # Newton steps to one optimum
MAX_HALVINGS = 40
ROUNDING = 1e-13  # rise of the objective, relative to it, that is a rounding error
TOLERANCE = 1e-11  # gradient norm at the optimum, relative to random-sign gradients
SMALLEST_CURVATURE = 1e-300  # of a parameter, for its unit
SMALLEST_SCALE = 1e-6  # of one step, relative to the scale before it


@dataclass(frozen=True)
class _Optimum:
    """θ (d,), the scale, the remaining gradient norm, and the Newton steps taken."""

    theta: Array
    scale: float
    residual: float
    steps: int


class HuberCurvature(LinearCurvature):
    """H + λ of the Huber loss at its scale; removals by Newton steps also follow the scale to its new optimum."""

    @property
    def fixed_without_steps(self) -> str:
        """The scale."""
        return "the scale of the residuals is held fixed"

    def reoptimised(self) -> LinearCurvature:
        """The curvature at the optimum over coefficients and scale."""
        optimum = _optimum(self.problem, np.ones(len(self.problem.features)), MAX_STEPS, TOLERANCE)
        if optimum.steps == 0:
            return self
        family = HuberLoss(_huber(self.problem).epsilon, optimum.scale)
        problem = replace(self.problem, theta=optimum.theta[None], family=family)
        return self.moved(problem, solver_for(problem, self._recipe, self.solver.damping))

    def newton_steps(self, factors: Array, start: Array | None, steps: int, tolerance: float = 1e-10) -> NewtonSteps:
        """Newton steps over coefficients and scale; `start`, which holds the scale, is not used."""
        with one_thread():
            optima = [_optimum(self.problem, row, steps, tolerance) for row in factors]
        shifts = np.stack([optimum.theta for optimum in optima]) - self.problem.theta
        residual = np.array([optimum.residual for optimum in optima])
        return NewtonSteps(shifts, residual, max(optimum.steps for optimum in optima))


def _huber(problem: Problem) -> HuberLoss:
    if not isinstance(problem.family, HuberLoss):
        raise TypeError(f"expected the Huber loss, got {problem.family.name}")
    return problem.family


def _optimum(problem: Problem, factors: Array, max_steps: int, tolerance: float) -> _Optimum:
    """The optimum over (θ, σ) under these weight factors (n,), by Newton steps that are halved until they descend."""
    features, targets = problem.features.dense(), problem.targets[:, 0]
    weights = factors * problem.weights
    ridge = float(problem.ridge_of(factors[None])[0]) * problem.features.penalised
    theta, scale, epsilon = problem.theta[0].copy(), _huber(problem).scale, _huber(problem).epsilon
    noise = problem.noise_of_copies

    def objective(theta: Array, scale: float) -> float:
        if scale <= 0:
            return np.inf
        z = features @ theta
        loss = HuberLoss(epsilon, scale).at(z[:, None], targets[:, None]).loss
        return float(weights @ loss + scale * weights.sum() + 0.5 * ridge @ theta**2)

    for step in range(max_steps + 1):
        family, z = HuberLoss(epsilon, scale), features @ theta
        slopes = family.at(z[:, None], targets[:, None])
        first, second, mixed = family.scale_derivatives(z, targets)
        gradient = np.append(features.T @ (weights * slopes.gradient[:, 0]) + ridge * theta, weights @ first)
        residual = float(np.linalg.norm(gradient)) / noise
        if step == max_steps:
            break
        hessian = np.empty((len(gradient), len(gradient)))
        hessian[:-1, :-1] = (features.T * (weights * slopes.diagonal[:, 0])) @ features + np.diag(ridge)
        hessian[:-1, -1] = hessian[-1, :-1] = features.T @ (weights * mixed)
        hessian[-1, -1] = weights @ second
        units = 1.0 / np.sqrt(np.maximum(hessian.diagonal(), SMALLEST_CURVATURE))  # columns may differ by any factor
        if residual <= tolerance and np.linalg.norm(units * gradient) <= tolerance * np.sqrt(weights.sum()):
            break
        direction = -units * lstsq(hessian * units[:, None] * units, units * gradient)[0]
        length = 1.0 if direction[-1] >= 0 else min(1.0, (1.0 - SMALLEST_SCALE) * scale / -direction[-1])
        before = objective(theta, scale)
        for _ in range(MAX_HALVINGS):
            moved = theta + length * direction[:-1], scale + length * direction[-1]
            if objective(*moved) <= before + ROUNDING * abs(before):
                break
            length *= 0.5
        else:
            break
        theta, scale = moved
    return _Optimum(theta, float(scale), residual, step)

"""The optimum of a linear model with an l1 under other example weights, by an active set and Newton steps on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from upweight.linear.features import Features
from upweight.linear.losses.loss import Derivatives
from upweight.linear.problem import Problem, shortest_subgradient

Array = NDArray[np.float64]
MAX_CHANGES = 1000  # changes of the active set on the way to one optimum
MAX_HALVINGS = 40  # halvings of one step
OPTIMAL_INSIDE = 1e-3  # share of the subgradient, inside the active set, from which a column enters
ROUNDING = 1e-13  # rise of the objective, relative to it, that is a rounding error
JITTER = 1e-12  # added to a singular Hessian of the active set, relative to its mean diagonal


@dataclass(frozen=True)
class SparseOptimum:
    """Parameters (d,) at the optimum, and how near to it they are.

    Attributes:
        theta: the parameters.
        residual: the norm of the shortest subgradient, relative to gradients with random signs.
        steps: Newton steps taken.
    """

    theta: Array
    residual: float
    steps: int


class SparseProblem:
    """J(θ; κ) + μ(κ) Σ|θⱼ| of one output, under weight factors κ (n,).

    The active set holds the columns whose parameters are not 0, and the intercept. A Newton step on it stops where the
    first parameter becomes 0, which leaves the set; at the optimum on the set, columns whose gradient exceeds μ enter
    it. For a squared loss every step is exact, so that the optimum is reached after finitely many.

    Source: Lee, Battle, Raina & Ng (2007), Efficient sparse coding algorithms (feature-sign search).
    """

    def __init__(self, problem: Problem, factors: Array) -> None:
        self.problem = problem
        self.weights = factors * problem.weights
        self.l1 = float(problem.l1_of(factors[None])[0]) * problem.features.penalised
        self.ridge = float(problem.ridge_of(factors[None])[0]) * problem.features.penalised
        self._columns: tuple[NDArray[np.intp], Features] | None = None

    def optimum(self, start: Array, max_steps: int, tolerance: float) -> SparseOptimum:
        """The optimum, from parameters (d,) near it."""
        theta, steps = start.copy(), 0
        active = np.flatnonzero((theta != 0) | (self.l1 == 0))
        for _ in range(MAX_CHANGES):
            gradient = self._gradient(theta)
            shortest = shortest_subgradient(gradient, theta, self.l1)
            residual = float(np.linalg.norm(shortest)) / self.problem.noise_of_copies
            if residual <= tolerance or steps >= max_steps:
                break
            outside = np.abs(shortest)
            outside[active] = 0.0
            inside = float(np.linalg.norm(shortest[active])) / self.problem.noise_of_copies
            if inside <= max(tolerance, OPTIMAL_INSIDE * residual) and outside.any():
                active = np.union1d(active, [int(np.argmax(outside))])
            moved = self._step(theta, gradient, active)
            steps += 1
            if moved is None:
                break
            theta = moved
            active = np.flatnonzero((theta != 0) | (self.l1 == 0))
        return SparseOptimum(theta, residual, steps)

    def _step(self, theta: Array, gradient: Array, active: NDArray[np.intp]) -> Array | None:
        """The parameters after a Newton step on the active set; None if the objective does not fall."""
        signs = np.sign(theta[active])
        entering = signs == 0
        signs[entering] = -np.sign(gradient[active][entering])  # a column enters against its gradient
        step = -self._solve(active, theta, gradient[active] + self.l1[active] * signs)
        direction = np.zeros_like(theta)
        direction[active] = step
        crossing = (signs != 0) & (self.l1[active] > 0) & (np.sign(theta[active] + step) == -signs)
        lengths = np.full(len(active), np.inf)
        lengths[crossing] = -theta[active][crossing] / step[crossing]
        # The whole step, and the places on the way where a parameter becomes 0.
        before, moves = self._objective(theta), [theta + direction]
        for length in np.unique(lengths[crossing]):
            moved = theta + length * direction
            moved[active[lengths == length]] = 0.0
            moves.append(moved)
        objectives = [self._objective(moved) for moved in moves]
        best = int(np.argmin(objectives))
        if objectives[best] <= before + ROUNDING * abs(before):
            return moves[best]
        return self._halved(theta, direction, before)

    def _halved(self, theta: Array, direction: Array, before: float) -> Array | None:
        """The longest halved step that lowers the objective; None if there is none."""
        length = 0.5
        for _ in range(MAX_HALVINGS):
            moved = theta + length * direction
            if self._objective(moved) < before:
                return moved
            length *= 0.5
        return None

    def _solve(self, active: NDArray[np.intp], theta: Array, right: Array) -> Array:
        """H⁻¹ right on the active set, (a,)."""
        features = self._features(active)
        curved = self.weights * self._derivatives(theta).second(0, 0)
        gram = features.weighted_gram(curved)
        hessian = np.tril(gram) + np.tril(gram, -1).T
        hessian[np.diag_indices_from(hessian)] += self.ridge[active]
        for jitter in (0.0, JITTER, 1e3 * JITTER):
            shifted = hessian + jitter * float(np.abs(np.diagonal(hessian)).mean() or 1.0) * np.eye(len(hessian))
            try:
                return np.asarray(cho_solve(cho_factor(shifted, lower=True), right))
            except LinAlgError:
                continue
        return np.asarray(np.linalg.lstsq(hessian, right, rcond=None)[0])

    def _features(self, active: NDArray[np.intp]) -> Features:
        """The columns of the active set, dense."""
        if self._columns is None or not np.array_equal(self._columns[0], active):
            features = self.problem.features
            columns = active[active < features.columns]
            self._columns = active, features.select(columns)
        return self._columns[1]

    def _derivatives(self, theta: Array) -> Derivatives:
        """Derivatives of the losses at these parameters, of which few are not 0."""
        used = np.flatnonzero((theta != 0) | (self.l1 == 0))
        outputs = self._features(used).times(theta[used, None])
        return self.problem.family.at(outputs, self.problem.targets)

    def _gradient(self, theta: Array) -> Array:
        """The gradient of the smooth part, (d,)."""
        slopes = self.weights[:, None] * self._derivatives(theta).gradient
        return np.asarray(self.problem.features.transposed_times(slopes)[:, 0] + self.ridge * theta)

    def _objective(self, theta: Array) -> float:
        loss = float(self.weights @ self._derivatives(theta).loss)
        return loss + 0.5 * float(self.ridge @ theta**2) + float(self.l1 @ np.abs(theta))

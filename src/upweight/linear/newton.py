"""Newton's method for the optimum under other example weights: leave-one-out, groups and retraining alike."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks
from upweight.core.curvature import NewtonSteps
from upweight.core.threads import one_thread
from upweight.linear.conjugate_gradients import conjugate_gradients
from upweight.linear.hessian_solver import HessianSolver
from upweight.linear.losses.loss import Derivatives
from upweight.linear.problem import Problem

Array = NDArray[np.float64]
ONE_THREAD_BELOW = 1e9  # multiplications of one product up to which one thread is fastest
MAX_OUTPUTS = 500_000  # outputs (groups × examples × K) in memory at a time: a few megabytes, near the cache
FEATURES_PER_OUTPUT = 8  # the outputs may also take up this fraction of the features' own size
MAX_PRODUCTS = 100  # Hessian products per Newton step
MAX_HALVINGS = 30  # halvings of one step
CHORD_SHARE = 1e-3  # the chord method is tried if at most this share of the examples changes
CHORD_GAIN = 0.1  # each step of the chord method must reduce the gradient to this fraction


@dataclass
class _State:
    """The state of the Newton iterations of all groups.

    Attributes:
        shifts: change of the parameters so far, (g, K, d).
        outputs: (n, g, K).
        derivatives: of the losses at these outputs.
        objective: (g,).
    """

    shifts: Array
    outputs: Array
    derivatives: Derivatives
    objective: Array

    def select(self, groups: NDArray[np.bool_]) -> _State:
        """The state of these groups alone."""
        return _State(
            self.shifts[groups],
            self.outputs[:, groups],
            self.derivatives.select_groups(groups),
            self.objective[groups],
        )


class Newton:
    """Inexact Newton on J(θ + Δ; factors · w) for many weightings at once.

    Each step solves (H at θ + Δ under the new weights) δ = −gradient by conjugate gradients, preconditioned with the
    factored Hessian of the full data. It then halves δ until the objective does not rise. A product for one removal
    costs 4nKd floating-point operations, and with the preconditioner two or three products are enough. If few of many
    examples change, the factored Hessian replaces the exact one (the chord method), as long as each step leaves at most
    a tenth of the gradient.

    Args:
        problem: the objective with all examples.
        solver: of the Hessian with all examples.
        max_outputs: outputs (groups × examples × K) in memory at a time.
        features_per_output: the outputs may also take up 1/features_per_output of the features' own size.
        chord_share: the chord method is tried if at most this share of the examples changes.
        loosest: relative residual to which Newton systems far from the optimum are solved, if there are enough steps.
    """

    def __init__(
        self,
        problem: Problem,
        solver: HessianSolver,
        *,
        max_outputs: int = MAX_OUTPUTS,
        features_per_output: float = FEATURES_PER_OUTPUT,
        chord_share: float = CHORD_SHARE,
        loosest: float = 0.0,
    ) -> None:
        self.problem = problem
        self.solver = solver
        self._max_outputs = max_outputs
        self._features_per_output = features_per_output
        self._chord_share = chord_share
        self._loosest = loosest

    def newton_steps(
        self,
        factors: Array,
        start: Array | None = None,
        steps: int = 2,
        tolerance: float = 1e-10,
        forcing: float = 1e-3,
    ) -> NewtonSteps:
        """The optimum for each row of weight factors.

        Args:
            factors: (groups, n), multiply the training weights; 0 removes an example.
            start: first guess of the shifts, (groups, parameters).
            steps: Newton steps at most.
            tolerance: a group is done when its gradient norm is below this, relative to `Problem.noise_of_copies`.
            forcing: relative residual to which each Newton system is solved near the optimum.
        """
        outputs, width = self.problem.shape
        shifts = np.zeros((len(factors), outputs * width))
        residual, most_steps = np.zeros(len(factors)), 0
        outputs_per_group = len(self.problem.features) * outputs
        # If the features are large, reading them is what costs, and more groups may be in memory at a time.
        size = max(
            1,
            self._max_outputs // outputs_per_group,
            int(self.problem.features.entries // (self._features_per_output * outputs_per_group)),
        )
        is_small = self.problem.features.entries * outputs * min(size, len(factors)) < ONE_THREAD_BELOW
        with one_thread() if is_small else nullcontext():
            for block in blocks(len(factors), size):
                guess = None if start is None else start[block].reshape(-1, outputs, width)
                block_shifts, residual[block], taken = self._optimise(factors[block], guess, steps, tolerance, forcing)
                shifts[block] = block_shifts.reshape(len(block_shifts), -1)
                most_steps = max(most_steps, taken)
        return NewtonSteps(shifts, residual, most_steps)

    def _optimise(
        self, factors: Array, start: Array | None, steps: int, tolerance: float, forcing: float
    ) -> tuple[Array, Array, int]:
        """(shifts, residuals, steps taken) of all groups together; a group that is done leaves the batch."""
        state = self._begin(factors, start)
        shifts, residual = state.shifts.copy(), np.zeros(len(factors))
        active, previous = np.arange(len(factors)), np.full(len(factors), np.inf)
        changes_little = bool((self.problem.mean_of(np.abs(factors - 1.0)) <= self._chord_share).all())
        use_chord = steps > 1 and changes_little
        for taken in range(steps + 1):
            gradient = self._gradient(state, factors)
            residual[active] = np.sqrt(np.einsum("gcd,gcd->g", gradient, gradient)) / self.problem.noise_of_copies
            shifts[active] = state.shifts
            use_chord = use_chord and bool((residual[active] <= CHORD_GAIN * previous[active]).all())
            previous = residual.copy()
            unfinished = residual[active] > tolerance
            if taken == steps or not unfinished.any():
                return shifts, residual, taken
            if not unfinished.all():
                active, factors, gradient = active[unfinished], factors[unfinished], gradient[unfinished]
                state = state.select(unfinished)
            if use_chord:
                step = -self.solver.solve_approximately(gradient)
            else:
                # Far from the optimum a step ends no nearer than the square of the residual, however exact it is.
                exactness = np.clip(residual[active], forcing, max(forcing, self._loosest))
                step = self._step(gradient, state.derivatives, factors, exactness)
            advanced = self._advance(state, step, factors)
            if advanced is None:
                return shifts, residual, taken
            state = advanced
        raise AssertionError("unreachable")

    def _step(self, gradient: Array, derivatives: Derivatives, factors: Array, forcing: Array) -> Array:
        def matvec(v: Array) -> Array:
            return self._matvec(v, derivatives, factors)

        return conjugate_gradients(matvec, self.solver.solve_approximately, -gradient, forcing, MAX_PRODUCTS)[0]

    def _begin(self, factors: Array, start: Array | None) -> _State:
        """The state at the first guess, or at no shift if that has the lower objective."""
        outputs = np.repeat(self.problem.outputs[:, None], len(factors), axis=1)
        unshifted = self._state_at(outputs, np.zeros((len(factors), *self.problem.shape)), factors)
        if start is None:
            return unshifted
        guessed = self._state_at(outputs + self._times(start), start, factors)
        better = guessed.objective < unshifted.objective
        if better.all():
            return guessed
        return self._state_at(
            np.where(better[:, None], guessed.outputs, outputs), np.where(better[:, None, None], start, 0.0), factors
        )

    def _advance(self, state: _State, step: Array, factors: Array) -> _State | None:
        """The state after the step, halved until the objective does not rise; None if no group can move any more."""
        change, length = self._times(step), np.ones(len(factors))
        for halvings in range(MAX_HALVINGS + 1):
            advanced = self._state_at(
                state.outputs + length[:, None] * change, state.shifts + length[:, None, None] * step, factors
            )
            worse = ~(advanced.objective <= state.objective + 1e-12 * np.abs(state.objective))
            if not worse.any():
                break
            length[worse] *= 0.5 if halvings < MAX_HALVINGS - 1 else 0.0  # in the end these groups stay where they are
        return advanced if length.any() else None

    def _state_at(self, outputs: Array, shifts: Array, factors: Array) -> _State:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            derivatives = self.problem.family.at(outputs, self.problem.targets[:, None])
            loss = np.einsum("gn,ng->g", factors * self.problem.weights, derivatives.loss)
        theta = self.problem.theta + shifts
        penalty = np.einsum("gcd,gcd->g", theta, self.problem.penalty_gradient(theta))
        return _State(shifts, outputs, derivatives, loss + 0.5 * self.problem.ridge_of(factors) * penalty)

    def _gradient(self, state: _State, factors: Array) -> Array:
        data = self._transposed_times(state.derivatives.gradient * self._weights(factors))
        penalty = self.problem.penalty_gradient(self.problem.theta + state.shifts)
        return data + self.problem.ridge_of(factors)[:, None, None] * penalty

    def _matvec(self, v: Array, derivatives: Derivatives, factors: Array) -> Array:
        data = self._transposed_times(derivatives.apply(self._times(v)) * self._weights(factors))
        ridge = self.problem.ridge_of(factors)[:, None, None] * self.problem.penalty_gradient(v)
        return data + ridge + self.solver.jitter * v

    def _weights(self, factors: Array) -> Array:
        """κᵢwᵢ as (n, g, 1)."""
        return np.asarray((factors * self.problem.weights).T[:, :, None])

    def _times(self, vectors: Array) -> Array:
        """X v for vectors (g, K, d): (n, g, K)."""
        groups, outputs, width = vectors.shape
        return self.problem.features.times(vectors.reshape(-1, width).T).reshape(-1, groups, outputs)

    def _transposed_times(self, values: Array) -> Array:
        """Xᵀ r for r (n, g, K): (g, K, d)."""
        n, groups, outputs = values.shape
        return self.problem.features.transposed_times(values.reshape(n, -1)).T.reshape(groups, outputs, -1)

"""Newton steps to the optimum under other example weights: leave-one-out, groups, and refits are one routine."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import Moved
from upweight.core.processes import one_thread
from upweight.linear.factor import Factor, conjugate_gradients
from upweight.linear.families import Derivatives
from upweight.linear.problem import Problem

Array = NDArray[np.float64]
SMALL = 1e9  # multiplications of one product up to which one thread is best
ENTRIES = 500_000  # outputs (groups × examples × K) that are held at a time: a few megabytes, near the cache
BESIDE = 8  # share of the features' own size that the outputs of all groups may have
PRODUCTS = 100  # products with the Hessian for one Newton step at most
HALVINGS = 30


@dataclass
class _State:
    """Groups on their way: shifts (g, K, d), outputs (n, g, K), and the objective they have reached (g,)."""

    shifts: Array
    outputs: Array
    reached: Array

    def of(self, groups: NDArray[np.bool_]) -> _State:
        """These groups alone."""
        return _State(self.shifts[groups], self.outputs[:, groups], self.reached[groups])


class Newton:
    """Inexact Newton on J(θ + Δ; kept · w) for many weightings at once.

    Each step solves (H at θ + Δ under the new weights) δ = −gradient by conjugate gradients preconditioned with the
    factor of the full-data Hessian, then halves δ until the objective does not rise. A single removal costs
    4nKd flops a product; the factor makes two or three products enough.
    """

    def __init__(self, problem: Problem, factor: Factor) -> None:
        self.problem = problem
        self.factor = factor

    def after(
        self, kept: Array, start: Array | None = None, steps: int = 2, tolerance: float = 1e-10, forcing: float = 1e-3
    ) -> Moved:
        """Shifts (groups, parameters) under `kept` (groups, n), until the gradient is `tolerance` · `problem.noise`.

        `forcing` is the relative residual to which each Newton system is solved.
        """
        outputs, width = self.problem.shape
        shifts = np.zeros((len(kept), outputs * width))
        residual, most = np.zeros(len(kept)), 0
        held = len(self.problem.features) * outputs
        # beside features so large that reading them is what costs, more groups may be held at a time
        size = max(1, ENTRIES // held, int(self.problem.features.entries // (BESIDE * held)))
        small = self.problem.features.entries * outputs * min(size, len(kept)) < SMALL
        with one_thread() if small else nullcontext():
            for first in range(0, len(kept), size):
                part = slice(first, first + size)
                begin = None if start is None else start[part].reshape(-1, outputs, width)
                found, left, used = self._batch(kept[part], begin, steps, tolerance, forcing)
                shifts[part], residual[part] = found.reshape(len(found), -1), left
                most = max(most, used)
        return Moved(shifts, residual, most)

    def _batch(
        self, kept: Array, start: Array | None, steps: int, tolerance: float, forcing: float
    ) -> tuple[Array, Array, int]:
        """All groups until each is done; those that are leave the batch."""
        state = self._begin(kept, start)
        shifts, left = state.shifts.copy(), np.zeros(len(kept))
        active = np.arange(len(kept))
        for used in range(steps + 1):
            derivatives = self._derivatives(state.outputs)
            gradient = self._gradient(state, derivatives, kept)
            left[active] = np.sqrt(np.einsum("gcd,gcd->g", gradient, gradient)) / self.problem.noise
            shifts[active] = state.shifts
            going = left[active] > tolerance
            if used == steps or not going.any():
                return shifts, left, used
            if not going.all():
                active, kept, gradient = active[going], kept[going], gradient[going]
                state, derivatives = state.of(going), derivatives.of(going)
            step = self._step(gradient, derivatives, kept, forcing)
            if not self._advance(state, step, kept):
                shifts[active] = state.shifts
                return shifts, left, used
        raise AssertionError("unreachable")

    def _step(self, gradient: Array, derivatives: Derivatives, kept: Array, forcing: float) -> Array:
        def matvec(v: Array) -> Array:
            return self._matvec(v, derivatives, kept)

        return conjugate_gradients(matvec, self.factor.solve_approximately, -gradient, forcing, PRODUCTS)[0]

    def _begin(self, kept: Array, start: Array | None) -> _State:
        """At the first guess, or at no shift where that is the better of the two."""
        base = np.repeat(self.problem.outputs[:, None], len(kept), axis=1)
        none = np.zeros((len(kept), *self.problem.shape))
        here = _State(none, base, self._objective(base, none, kept))
        if start is None:
            return here
        outputs = base + self._times(start)
        reached = self._objective(outputs, start, kept)
        better = reached < here.reached
        return _State(
            np.where(better[:, None, None], start, 0.0),
            np.where(better[:, None], outputs, base),
            np.where(better, reached, here.reached),
        )

    def _advance(self, state: _State, step: Array, kept: Array) -> bool:
        """Move along the step, halved where the objective would rise; False when no group can move any more."""
        moved = self._times(step)
        length = np.ones(len(kept))
        for _ in range(HALVINGS):
            outputs = state.outputs + length[:, None] * moved
            shifts = state.shifts + length[:, None, None] * step
            reached = self._objective(outputs, shifts, kept)
            worse = ~(reached <= state.reached + 1e-12 * np.abs(state.reached))
            if not worse.any():
                break
            length[worse] *= 0.5
        length[worse] = 0.0
        state.outputs = state.outputs + length[:, None] * moved
        state.shifts = state.shifts + length[:, None, None] * step
        state.reached = np.where(worse, state.reached, reached)
        return bool((length > 0).any())

    def _derivatives(self, outputs: Array) -> Derivatives:
        targets = self.problem.targets
        return self.problem.family.at(outputs, targets[:, None])

    def _objective(self, outputs: Array, shifts: Array, kept: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            loss = np.einsum("gn,ng->g", kept * self.problem.weights, self._derivatives(outputs).loss)
        theta = self.problem.theta + shifts
        penalty = np.einsum("gcd,gcd->g", theta, self.problem.penalty_gradient(theta))
        return np.asarray(loss + 0.5 * self.problem.ridge_of(kept) * penalty)

    def _gradient(self, state: _State, derivatives: Derivatives, kept: Array) -> Array:
        data = self._transposed_times(derivatives.gradient * self._weigh(kept))
        penalty = self.problem.penalty_gradient(self.problem.theta + state.shifts)
        return data + self.problem.ridge_of(kept)[:, None, None] * penalty

    def _matvec(self, v: Array, derivatives: Derivatives, kept: Array) -> Array:
        data = self._transposed_times(derivatives.apply(self._times(v)) * self._weigh(kept))
        ridge = self.problem.ridge_of(kept)[:, None, None] * self.problem.penalty_gradient(v)
        return data + ridge + self.factor.jitter * v

    def _weigh(self, kept: Array) -> Array:
        """κᵢwᵢ as (n, g, 1)."""
        return np.asarray((kept * self.problem.weights).T[:, :, None])

    def _times(self, vectors: Array) -> Array:
        groups, outputs, width = vectors.shape
        return self.problem.features.times(vectors.reshape(-1, width).T).reshape(-1, groups, outputs)

    def _transposed_times(self, values: Array) -> Array:
        n, groups, outputs = values.shape
        return self.problem.features.transposed_times(values.reshape(n, -1)).T.reshape(groups, outputs, -1)

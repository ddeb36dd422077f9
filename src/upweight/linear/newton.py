"""Newton steps to the optimum under other example weights: leave-one-out, groups, and refits are one routine."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import Moved
from upweight.core.threads import one_thread
from upweight.linear.conjugate_gradients import conjugate_gradients
from upweight.linear.hessian_solver import HessianSolver
from upweight.linear.losses.loss import Derivatives
from upweight.linear.problem import Problem

Array = NDArray[np.float64]
SMALL = 1e9  # multiplications of one product up to which one thread is best
ENTRIES = 500_000  # outputs (groups × examples × K) that are held at a time: a few megabytes, near the cache
BESIDE = 8  # share of the features' own size that the outputs of all groups may have
PRODUCTS = 100  # products with the Hessian for one Newton step at most
HALVINGS = 30
FEW = 1e-3  # share of the examples that change up to which the full-data factor alone is tried
GAIN = 0.1  # what one step by it must leave of the gradient at most


@dataclass
class _State:
    """Groups on their way: shifts (g, K, d), outputs (n, g, K), losses there, the objective they have reached (g,)."""

    shifts: Array
    outputs: Array
    derivatives: Derivatives
    reached: Array

    def of(self, groups: NDArray[np.bool_]) -> _State:
        """These groups alone."""
        return _State(
            self.shifts[groups], self.outputs[:, groups], self.derivatives.select_groups(groups), self.reached[groups]
        )


class Newton:
    """Inexact Newton on J(θ + Δ; kept · w) for many weightings at once.

    Each step solves (H at θ + Δ under the new weights) δ = −gradient by conjugate gradients preconditioned with the
    factor of the full-data Hessian, then halves δ until the objective does not rise. A single removal costs
    4nKd flops a product; the factor makes two or three products enough. Where few of many examples go, the factor
    alone is the system (the chord method), as long as each step leaves a tenth of the gradient at most.
    """

    def __init__(self, problem: Problem, solver: HessianSolver) -> None:
        self.problem = problem
        self.solver = solver

    def after(
        self, kept: Array, start: Array | None = None, steps: int = 2, tolerance: float = 1e-10, forcing: float = 1e-3
    ) -> Moved:
        """Shifts (groups, parameters) under `kept` (groups, n), until the gradient is `tolerance` · noise of copies.

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
        active, before = np.arange(len(kept)), np.full(len(kept), np.inf)
        alone = steps > 1 and bool((self.problem.mean_of(np.abs(kept - 1.0)) <= FEW).all())
        for used in range(steps + 1):
            gradient = self._gradient(state, kept)
            left[active] = np.sqrt(np.einsum("gcd,gcd->g", gradient, gradient)) / self.problem.noise_of_copies
            shifts[active] = state.shifts
            alone = alone and bool((left[active] <= GAIN * before[active]).all())
            before = left.copy()
            going = left[active] > tolerance
            if used == steps or not going.any():
                return shifts, left, used
            if not going.all():
                active, kept, gradient = active[going], kept[going], gradient[going]
                state = state.of(going)
            if alone:
                step = -self.solver.solve_approximately(gradient)
            else:
                step = self._step(gradient, state.derivatives, kept, forcing)
            moved = self._advance(state, step, kept)
            if moved is None:
                return shifts, left, used
            state = moved
        raise AssertionError("unreachable")

    def _step(self, gradient: Array, derivatives: Derivatives, kept: Array, forcing: float) -> Array:
        def matvec(v: Array) -> Array:
            return self._matvec(v, derivatives, kept)

        return conjugate_gradients(matvec, self.solver.solve_approximately, -gradient, forcing, PRODUCTS)[0]

    def _begin(self, kept: Array, start: Array | None) -> _State:
        """At the first guess, or at no shift where that is the better of the two."""
        base = np.repeat(self.problem.outputs[:, None], len(kept), axis=1)
        none = np.zeros((len(kept), *self.problem.shape))
        here = self._at(base, none, kept)
        if start is None:
            return here
        there = self._at(base + self._times(start), start, kept)
        better = there.reached < here.reached
        if better.all():
            return there
        return self._at(
            np.where(better[:, None], there.outputs, base), np.where(better[:, None, None], start, 0.0), kept
        )

    def _advance(self, state: _State, step: Array, kept: Array) -> _State | None:
        """Moved along the step, halved where the objective would rise; None when no group can move any more."""
        moved, length = self._times(step), np.ones(len(kept))
        for halved in range(HALVINGS + 1):
            there = self._at(state.outputs + length[:, None] * moved, state.shifts + length[:, None, None] * step, kept)
            worse = ~(there.reached <= state.reached + 1e-12 * np.abs(state.reached))
            if not worse.any():
                break
            length[worse] *= 0.5 if halved < HALVINGS - 1 else 0.0  # at the end they stay where they are
        return there if length.any() else None

    def _at(self, outputs: Array, shifts: Array, kept: Array) -> _State:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            derivatives = self.problem.family.at(outputs, self.problem.targets[:, None])
            loss = np.einsum("gn,ng->g", kept * self.problem.weights, derivatives.loss)
        theta = self.problem.theta + shifts
        penalty = np.einsum("gcd,gcd->g", theta, self.problem.penalty_gradient(theta))
        return _State(shifts, outputs, derivatives, loss + 0.5 * self.problem.ridge_of(kept) * penalty)

    def _gradient(self, state: _State, kept: Array) -> Array:
        data = self._transposed_times(state.derivatives.gradient * self._weigh(kept))
        penalty = self.problem.penalty_gradient(self.problem.theta + state.shifts)
        return data + self.problem.ridge_of(kept)[:, None, None] * penalty

    def _matvec(self, v: Array, derivatives: Derivatives, kept: Array) -> Array:
        data = self._transposed_times(derivatives.apply(self._times(v)) * self._weigh(kept))
        ridge = self.problem.ridge_of(kept)[:, None, None] * self.problem.penalty_gradient(v)
        return data + ridge + self.solver.jitter * v

    def _weigh(self, kept: Array) -> Array:
        """κᵢwᵢ as (n, g, 1)."""
        return np.asarray((kept * self.problem.weights).T[:, :, None])

    def _times(self, vectors: Array) -> Array:
        groups, outputs, width = vectors.shape
        return self.problem.features.times(vectors.reshape(-1, width).T).reshape(-1, groups, outputs)

    def _transposed_times(self, values: Array) -> Array:
        n, groups, outputs = values.shape
        return self.problem.features.transposed_times(values.reshape(n, -1)).T.reshape(groups, outputs, -1)

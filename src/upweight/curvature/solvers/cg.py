"""Conjugate gradients for all right-hand sides at once, each with its own step lengths.

`linear/conjugate_gradients.py` has its own for numpy arrays, which keeps all columns to the end. Here finished columns
are dropped and others restart from their true residual; one shared recurrence would be slower or round differently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from upweight.core.curvature_recipes import CG
from upweight.core.forecast import StepClock
from upweight.core.saved_state import NOTHING_SAVED, SavedState
from upweight.curvature.operators import Blocks, Operator
from upweight.curvature.solvers.algebra import (
    add_scaled,
    column_count,
    inner_products,
    norms,
    scale_and_add,
    take_columns,
)
from upweight.curvature.solvers.solution import PreparedSolver, Solution, relative_residual

Preconditioner = Callable[[Blocks], Blocks]


@dataclass
class CGState:
    """The state of all columns.

    Attributes:
        x: the current solutions.
        remainder: b − (A + shift) x, as measured.
        residual: ‖remainder‖ / ‖b‖, (k,).
        stopped: columns that met negative curvature, (k,).
        steps: products taken.
    """

    x: dict[str, Tensor]
    remainder: dict[str, Tensor]
    residual: Tensor
    stopped: Tensor
    steps: int = 0


@final
class ConjugateGradients(PreparedSolver):
    """Preconditioned conjugate gradients (Hestenes & Stiefel 1952) on k columns that share every product.

    A column is done at ‖r‖ ≤ tolerance·‖b‖ and leaves the others. If it meets pᵀ(A + shift)p ≤ 0 it stops and keeps its
    current solution. At the end the residual of the recurrence is compared with the true one; if rounding separated
    them, the column restarts from its current solution, as long as that helps.

    Args:
        operator: A + shift, the same matrix in every product.
        recipe: the tolerance and the maximum number of steps.
        preconditioner: v ↦ P⁻¹ v with P ≈ A + shift up to a factor, symmetric and positive definite.
        preconditioned_by: the name of the preconditioner in diagnostics.
        state_of_preconditioner: its `state`; None if there is nothing to keep.
        condition: about the condition number that the preconditioner leaves; None if it is not known.
    """

    def __init__(
        self,
        operator: Operator,
        recipe: CG,
        preconditioner: Preconditioner | None = None,
        preconditioned_by: str = "",
        state_of_preconditioner: Callable[[], SavedState] | None = None,
        condition: float | None = None,
    ) -> None:
        suffix = f" preconditioned by {preconditioned_by}" if preconditioned_by else ""
        super().__init__(operator, "conjugate gradients" + suffix)
        self.recipe, self.preconditioner = recipe, preconditioner
        self._state_of_preconditioner, self.condition = state_of_preconditioner, condition

    def state(self) -> SavedState:
        """The state of the preconditioner."""
        return NOTHING_SAVED if self._state_of_preconditioner is None else self._state_of_preconditioner()

    def solve(self, blocks: Blocks) -> Solution:
        """(A + shift)⁻¹ b for every column b of blocks."""
        size = norms(blocks)
        state = self._start(blocks, size)
        while True:
            before = state.residual.clone()
            unsolved = (state.residual > self.recipe.tolerance) & ~state.stopped
            if not bool(unsolved.any()) or state.steps >= self.recipe.steps:
                break
            self._iterate(state, unsolved.nonzero()[:, 0], size)
            self._measure(state, blocks, size)
            unsolved = (state.residual > self.recipe.tolerance) & ~state.stopped
            if not bool((state.residual < before / 2)[unsolved].any()):
                break
        residual = float(state.residual.max())
        return Solution(state.x, residual, state.steps, residual <= self.recipe.tolerance, self._notes(state))

    def _start(self, blocks: Blocks, size: Tensor) -> CGState:
        """Start at zero: the first step along P⁻¹ b then has the best length, which a start at P⁻¹ b would not have."""
        zeros = {name: torch.zeros_like(block) for name, block in blocks.items()}
        return CGState(zeros, dict(blocks), relative_residual(size, size), torch.zeros_like(size, dtype=torch.bool))

    def _measure(self, state: CGState, blocks: Blocks, size: Tensor) -> None:
        product = self.operator.matvec(state.x)
        state.remainder = {name: blocks[name] - block for name, block in product.items()}
        state.residual = relative_residual(norms(state.remainder), size)

    def _iterate(self, state: CGState, active: Tensor, size: Tensor) -> None:
        """Iterate the columns `active` until each is done, stopped, or out of steps."""
        r = take_columns(state.remainder, active)
        z = self._preconditioned(r)
        d = {name: block.clone() for name, block in z.items()}
        rho, clock = inner_products(r, z), StepClock("steps of conjugate gradients at most", self.recipe.steps)
        while len(active) and state.steps < self.recipe.steps:
            w = self.operator.matvec(d)
            state.steps += 1
            clock.report(state.steps)
            curvatures = inner_products(d, w)
            positive = curvatures > 0
            state.stopped[active[~positive]] = True
            alpha = torch.where(
                positive, rho / curvatures.where(positive, curvatures.new_ones(())), curvatures.new_zeros(())
            )
            for name, block in state.x.items():
                block.index_add_(0, active, alpha.to(block).view(-1, *[1] * (block.ndim - 1)) * d[name])
            add_scaled(r, -alpha, w)
            unsolved = positive & (norms(r) > self.recipe.tolerance * size[active])
            if not bool(unsolved.all()):
                active, rho = active[unsolved], rho[unsolved]
                r, d = take_columns(r, unsolved), take_columns(d, unsolved)
            if len(active):
                z = self._preconditioned(r)
                rho, old_rho = inner_products(r, z), rho
                d = scale_and_add(rho / old_rho, d, z)

    def _preconditioned(self, r: Blocks) -> Blocks:
        return r if self.preconditioner is None else self.preconditioner(r)

    def _notes(self, state: CGState) -> tuple[str, ...]:
        stopped = int(state.stopped.sum())
        if not stopped:
            return ()
        return (
            f"Negative curvature: {stopped} of {column_count(state.x)} solves met a direction along which the "
            f"objective curves down and stopped there, at a relative residual of up to "
            f"{float(state.residual[state.stopped].max()):.2g}; use GaussNewton() or a larger damping.",
        )

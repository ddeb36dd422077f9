"""Conjugate gradients: all right-hand sides at once, each with its own steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from upweight.core.curvature_recipes import CG
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
    """Where the columns stand.

    Attributes:
        x: the answers so far.
        left: b − (A + shift) x, as measured.
        residual: ‖left‖ / ‖b‖, (k,).
        stopped: columns that met negative curvature, (k,).
        steps: products taken.
    """

    x: dict[str, Tensor]
    left: dict[str, Tensor]
    residual: Tensor
    stopped: Tensor
    steps: int = 0


@final
class ConjugateGradients(PreparedSolver):
    """Preconditioned conjugate gradients (Hestenes & Stiefel 1952) on k columns that share every product.

    A column is done at ‖r‖ ≤ tolerance·‖b‖ and leaves the others; it stops where pᵀ(A + shift)p ≤ 0, keeping what it
    has. The recursion's residual is checked against the true one at the end: where rounding pulled them apart, the
    column starts again from where it is, as long as that helps.

    Args:
        operator: A + shift, the same matrix in every product.
        recipe: tolerance, and steps at most.
        preconditioner: v ↦ P⁻¹ v with P ≈ A + shift up to a factor, symmetric and positive definite.
        named: the preconditioner in words.
    """

    def __init__(
        self, operator: Operator, recipe: CG, preconditioner: Preconditioner | None = None, named: str = ""
    ) -> None:
        super().__init__(operator, "conjugate gradients" + (f" preconditioned by {named}" if named else ""))
        self.recipe, self.preconditioner = recipe, preconditioner

    def solve(self, blocks: Blocks) -> Solution:
        """x for every column of blocks."""
        size = norms(blocks)
        state = self._start(blocks, size)
        while True:
            before = state.residual.clone()
            waiting = (state.residual > self.recipe.tolerance) & ~state.stopped
            if not bool(waiting.any()) or state.steps >= self.recipe.steps:
                break
            self._run(state, waiting.nonzero()[:, 0], size)
            self._measure(state, blocks, size)
            unsettled = (state.residual > self.recipe.tolerance) & ~state.stopped
            if not bool((state.residual < before / 2)[unsettled].any()):
                break
        residual = float(state.residual.max())
        return Solution(state.x, residual, state.steps, residual <= self.recipe.tolerance, self._notes(state))

    def _start(self, blocks: Blocks, size: Tensor) -> CGState:
        """At zero: the first step is along P⁻¹ b and as long as is best, which a start at P⁻¹ b would not be."""
        zeros = {name: torch.zeros_like(block) for name, block in blocks.items()}
        return CGState(zeros, dict(blocks), relative_residual(size, size), torch.zeros_like(size, dtype=torch.bool))

    def _measure(self, state: CGState, blocks: Blocks, size: Tensor) -> None:
        product = self.operator.matvec(state.x)
        state.left = {name: blocks[name] - block for name, block in product.items()}
        state.residual = relative_residual(norms(state.left), size)

    def _run(self, state: CGState, active: Tensor, size: Tensor) -> None:
        """Steps of the recursion for the columns `active`, until each is done, stopped, or out of steps."""
        r = take_columns(state.left, active)
        z = self._preconditioned(r)
        d = {name: block.clone() for name, block in z.items()}
        rho = inner_products(r, z)
        while len(active) and state.steps < self.recipe.steps:
            w = self.operator.matvec(d)
            state.steps += 1
            bent = inner_products(d, w)
            positive = bent > 0
            state.stopped[active[~positive]] = True
            alpha = torch.where(positive, rho / bent.where(positive, bent.new_ones(())), bent.new_zeros(()))
            for name, block in state.x.items():
                block.index_add_(0, active, alpha.to(block).view(-1, *[1] * (block.ndim - 1)) * d[name])
            add_scaled(r, -alpha, w)
            going = positive & (norms(r) > self.recipe.tolerance * size[active])
            if not bool(going.all()):
                active, rho = active[going], rho[going]
                r, d = take_columns(r, going), take_columns(d, going)
            if len(active):
                z = self._preconditioned(r)
                after = inner_products(r, z)
                d = scale_and_add(after / rho, d, z)
                rho = after

    def _preconditioned(self, r: Blocks) -> Blocks:
        return r if self.preconditioner is None else self.preconditioner(r)

    def _notes(self, state: CGState) -> tuple[str, ...]:
        met = int(state.stopped.sum())
        if not met:
            return ()
        return (
            f"Negative curvature: {met} of {column_count(state.x)} solves met a direction along which the "
            f"objective curves down and stopped there, at a relative residual of up to "
            f"{float(state.residual[state.stopped].max()):.2g}; take GaussNewton() or a larger damping.",
        )

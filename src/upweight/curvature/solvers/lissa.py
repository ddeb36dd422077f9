"""The LiSSA solver: the inverse as a Neumann series on random batches."""

from __future__ import annotations

from typing import final

import numpy as np
import torch

from upweight.core.curvature_recipes import LiSSA
from upweight.curvature.operators import Blocks, Operator
from upweight.curvature.solvers.algebra import add_scaled, norms, scale_columns, standard_normal, to_blocks, to_matrix
from upweight.curvature.solvers.solution import CONVERGED_RESIDUAL, PreparedSolver, Solution

DIVERGENCE_GROWTH = 1e3  # a series has diverged when it is this many times as large as its right-hand side
MAX_RESTARTS = 12  # doublings of the scale; a batch of one among some thousand examples may need that many
POWER_ITERATIONS = 30
EIGENVALUE_MARGIN = 1.1  # the scale over the estimated largest eigenvalue


@final
class LissaSolver(PreparedSolver):
    """h ← b + h − (A_B + shift) h / scale, `depth` times; x = mean of h / scale over `repeats`.

    A_B is the matrix of a random batch, scaled to the whole; the shift is the effective damping. It converges for
    scale > λ_max / 2 of the batches, in about scale / (smallest eigenvalue + shift) steps (Agarwal, Bullins & Hazan
    2017; Koh & Liang 2017, §3). A series that diverges is restarted at twice the scale, which `notes` reports.

    Attributes:
        scale: the recipe's scale, or 1.1 times the largest eigenvalue.
        max_restarts: how often the scale is doubled at most.
    """

    def __init__(self, operator: Operator, recipe: LiSSA) -> None:
        super().__init__(operator, "LiSSA")
        self.recipe, self.max_restarts = recipe, MAX_RESTARTS
        self.scale = recipe.scale or EIGENVALUE_MARGIN * (largest_eigenvalue(operator, recipe.seed) + operator.shift)
        self._whole = recipe.batch >= len(operator.summed.train)

    def solve(self, blocks: Blocks) -> Solution:
        """The mean of the series for every column. Raises ValueError if one diverges at every scale."""
        recipe, size, first_scale = self.recipe, norms(blocks), self.scale
        generator = np.random.default_rng(recipe.seed)
        x = {name: torch.zeros_like(block) for name, block in blocks.items()}
        for _ in range(recipe.repeats):
            h = self._series(blocks, size, generator)
            for _ in range(self.max_restarts):
                if h is not None:
                    break
                self.scale *= 2
                h = self._series(blocks, size, generator)
            if h is None:
                raise ValueError(
                    f"LiSSA diverged at every scale from {first_scale:.2g} to {self.scale:.2g}: the curvature is "
                    "negative along some direction and the damping does not cover it, or the scale is far too small "
                    "(it is that of the summed objective); use GaussNewton(), a larger damping, or scale=None"
                )
            add_scaled(x, torch.full_like(size, 1 / (self.scale * recipe.repeats)), h)
        residual = float(self.residuals(x, blocks).max())
        converged = residual <= CONVERGED_RESIDUAL
        return Solution(x, residual, recipe.depth * recipe.repeats, converged, self._notes(first_scale, converged))

    def _series(
        self, blocks: Blocks, size: torch.Tensor, generator: np.random.Generator
    ) -> dict[str, torch.Tensor] | None:
        """h after all steps; None if it diverges."""
        h = {name: block.clone() for name, block in blocks.items()}
        ones = torch.ones_like(size)
        for step in range(self.recipe.depth):
            product = self._batch_operator(generator).matvec(h)
            add_scaled(h, ones, blocks)
            add_scaled(h, -ones / self.scale, product)
            # without curvature h grows by b in every step, which is not divergence
            if not bool((norms(h) <= max(DIVERGENCE_GROWTH, 2.0 * (step + 2)) * size).all()):
                return None
        return h

    def _batch_operator(self, generator: np.random.Generator) -> Operator:
        if self._whole:
            return self.operator
        positions = generator.choice(len(self.operator.summed.train), self.recipe.batch, replace=False)
        return self.operator.subset(positions)

    def _notes(self, first_scale: float, converged: bool) -> tuple[str, ...]:
        notes = []
        if self.scale > first_scale:
            notes.append(f"LiSSA diverged at scale {first_scale:.2g} and was restarted at {self.scale:.2g}.")
        if not converged and self.operator.shift > 0:
            needed = self.scale / self.operator.shift
            notes.append(
                f"LiSSA took {self.recipe.depth:,} steps; directions without curvature need several times scale / "
                f"damping = {needed:,.0f}. A small batch adds noise, which more repeats average out."
            )
        return tuple(notes)


def largest_eigenvalue(operator: Operator, seed: int) -> float:
    """The largest absolute eigenvalue of A by power iteration on all data; the estimate approaches it from below."""
    network = operator.network
    v = to_blocks(network, standard_normal(network, 1, torch.Generator().manual_seed(seed)))
    size = 0.0
    for _ in range(POWER_ITERATIONS):
        v = operator.product(scale_columns(v, 1 / norms(v)))
        size = float(to_matrix(network, v).double().norm())
        if size == 0.0:
            return 0.0
    return size

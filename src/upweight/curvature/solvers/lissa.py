"""LiSSA: the inverse as a Neumann series on random batches."""

from __future__ import annotations

from typing import final

import numpy as np
import torch

from upweight.core.curvature_recipes import LiSSA
from upweight.curvature.operators import Blocks, Operator
from upweight.curvature.solvers.algebra import add_scaled, norms, scale_columns, standard_normal, to_blocks, to_matrix
from upweight.curvature.solvers.solution import CONVERGED_RESIDUAL, PreparedSolver, Solution

DIVERGENCE_GROWTH = 1e3  # a series that is more than this many times its right-hand side has diverged
MAX_RESTARTS = 12  # a batch of one can be that many doublings off among some thousand examples
POWER_ITERATIONS = 30  # of the power iteration
EIGENVALUE_MARGIN = 1.1  # on the largest eigenvalue that it finds


@final
class LissaSolver(PreparedSolver):
    """h ← b + h − (A_B + shift) h / scale, `depth` times; x = mean of h / scale over `repeats`.

    A_B is the matrix of a random batch, scaled to the whole; the shift is the effective damping. It converges for
    scale > λ_max / 2 of the batches, in about scale / (smallest eigenvalue + shift) steps (Agarwal, Bullins & Hazan
    2017; Koh & Liang 2017, §3). A series that diverges is started again at twice the scale, and `notes` says so.

    Attributes:
        scale: 1.1 times the largest eigenvalue where the recipe does not give one.
    """

    def __init__(self, operator: Operator, recipe: LiSSA) -> None:
        super().__init__(operator, "LiSSA")
        self.recipe = recipe
        self.scale = recipe.scale or EIGENVALUE_MARGIN * (largest_eigenvalue(operator, recipe.seed) + operator.shift)
        self._whole = recipe.batch >= len(operator.summed.train)

    def solve(self, blocks: Blocks) -> Solution:
        """The mean of the series, for every column. Raises ValueError for one that diverges at every scale."""
        recipe, size, begun = self.recipe, norms(blocks), self.scale
        draw = np.random.default_rng(recipe.seed)
        x = {name: torch.zeros_like(block) for name, block in blocks.items()}
        for _ in range(recipe.repeats):
            h = self._series(blocks, size, draw)
            for _ in range(MAX_RESTARTS):
                if h is not None:
                    break
                self.scale *= 2
                h = self._series(blocks, size, draw)
            if h is None:
                raise ValueError(
                    f"LiSSA diverged at every scale from {begun:.2g} to {self.scale:.2g}: the curvature is negative "
                    "along some direction and the damping does not cover it, or the scale is far too small (it is that "
                    "of the summed objective); take GaussNewton(), a larger damping, or scale=None"
                )
            add_scaled(x, torch.full_like(size, 1 / (self.scale * recipe.repeats)), h)
        residual = float(self.residuals(x, blocks).max())
        converged = residual <= CONVERGED_RESIDUAL
        return Solution(x, residual, recipe.depth * recipe.repeats, converged, self._notes(begun, converged))

    def _series(self, blocks: Blocks, size: torch.Tensor, draw: np.random.Generator) -> dict[str, torch.Tensor] | None:
        """h after all steps; None once it has diverged."""
        h = {name: block.clone() for name, block in blocks.items()}
        one = torch.ones_like(size)
        for step in range(self.recipe.depth):
            bent = self._sampled(draw).matvec(h)
            add_scaled(h, one, blocks)
            add_scaled(h, -one / self.scale, bent)
            # b alone, added up step by step, is no divergence
            if not bool((norms(h) <= max(DIVERGENCE_GROWTH, 2.0 * (step + 2)) * size).all()):
                return None
        return h

    def _sampled(self, draw: np.random.Generator) -> Operator:
        if self._whole:
            return self.operator
        return self.operator.subset(draw.choice(len(self.operator.summed.train), self.recipe.batch, replace=False))

    def _notes(self, begun: float, converged: bool) -> tuple[str, ...]:
        notes = []
        if self.scale > begun:
            notes.append(f"LiSSA diverged at scale {begun:.2g} and was started again at {self.scale:.2g}.")
        if not converged and self.operator.shift > 0:
            needed = self.scale / self.operator.shift
            notes.append(
                f"LiSSA took {self.recipe.depth:,} steps, directions of no curvature need several times scale / "
                f"damping = {needed:,.0f}; a small batch adds noise that more repeats average out."
            )
        return tuple(notes)


def largest_eigenvalue(operator: Operator, seed: int) -> float:
    """The size of the eigenvalue of A that is largest in size, by power iteration on the whole data, from below."""
    network = operator.network
    v = to_blocks(network, standard_normal(network, 1, torch.Generator().manual_seed(seed)))
    size = 0.0
    for _ in range(POWER_ITERATIONS):
        v = operator.product(scale_columns(v, 1 / norms(v)))
        size = float(to_matrix(network, v).double().norm())
        if size == 0.0:
            return 0.0
    return size

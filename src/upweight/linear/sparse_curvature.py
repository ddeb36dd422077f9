"""The curvature of a linear model with an l1: the Hessian on the parameters that are not 0."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import ExactCurvature, NewtonSteps, Solved
from upweight.core.curvature_recipes import Hessian
from upweight.core.forecast import counted
from upweight.core.rows import DenseRows, Rows
from upweight.core.threads import one_thread
from upweight.linear.curvature import LinearCurvature
from upweight.linear.problem import Problem
from upweight.linear.rows import FactoredRows
from upweight.linear.sparse_optimum import SparseProblem

Array = NDArray[np.float64]
REOPTIMISATION_STEPS = 1000  # steps of the active set to the optimum at most
TOLERANCE = 1e-11  # gradient norm at the optimum, relative to random-sign gradients
CHANGES = 5.0  # assumed changes of the active set on the way to one new optimum


class SparseCurvature(ExactCurvature):
    """H + λ on the active set; along the other parameters, which stay at 0, it is infinite.

    Removals by Newton steps let parameters leave 0 and return to it (`SparseProblem`).

    Args:
        problem: the training objective of one output, with an l1, at its parameters.
        recipe, damping: as for `LinearCurvature`, on the active set.
    """

    def __init__(self, problem: Problem, recipe: Hessian | None, damping: float) -> None:
        self.problem = problem
        self.active = np.flatnonzero((problem.theta[0] != 0) | (problem.features.penalised == 0))
        self._recipe, self._damping = recipe, damping

    @cached_property
    def inner(self) -> LinearCurvature:
        """The curvature of the smooth part on the active set."""
        features, theta = self.problem.features, self.problem.theta
        on_active = features.select(self.active[self.active < features.columns])
        smooth = replace(self.problem, features=on_active, theta=theta[:, self.active], l1_fixed=0.0, l1_each=0.0)
        return LinearCurvature(smooth, self._recipe, self._damping)

    def matvec(self, vectors: Array) -> Array:
        """(H + λ) v on the active set, 0 elsewhere."""
        return self._spread(self.inner.matvec(vectors[:, self.active]))

    def solve(self, rows: Rows) -> Solved:
        """(H + λ)⁻¹ rows on the active set, 0 elsewhere."""
        solved = self.inner.solve(self._restricted(rows))
        return replace(solved, rows=DenseRows(self._spread(solved.rows.dense())))

    @property
    def calibrated(self) -> bool:
        """True: this is the curvature of the training objective as long as the active set stays."""
        return True

    def paired(self, left: Rows, right: Rows) -> Array:
        """leftᵢᵀ H⁻¹ rightᵢ on the active set."""
        return self.inner.paired(self._restricted(left), self._restricted(right))

    @property
    def parameters(self) -> Array:
        """θ, (d,)."""
        return np.asarray(self.problem.theta[0])

    def reoptimised(self) -> SparseCurvature:
        """The curvature at the optimum of the training objective."""
        ones = np.ones(len(self.problem.features))
        optimum = SparseProblem(self.problem, ones).optimum(self.parameters, REOPTIMISATION_STEPS, TOLERANCE)
        if np.array_equal(optimum.theta, self.parameters):
            return self
        return SparseCurvature(replace(self.problem, theta=optimum.theta[None]), self._recipe, self._damping)

    def corrected(self, rows: Rows) -> Rows:
        """Rows with the leverage correction on the active set."""
        restricted = self.inner.corrected(self._restricted(rows))
        assert isinstance(rows, FactoredRows)
        return FactoredRows(rows.features, restricted.slopes, rows.share, rows.common)

    def leverage(self) -> Array:
        """Leverages on the active set, (n,): their sum is at most the number of active parameters."""
        return self.inner.leverage()

    def part_matvec(self, membership: Array, vectors: Array) -> Array:
        """H_U v on the active set for every group U."""
        return self._spread(self.inner.part_matvec(membership, vectors[:, self.active]))

    def newton_steps(self, factors: Array, start: Array | None, steps: int, tolerance: float = 1e-10) -> NewtonSteps:
        """The optimum under other example weights, with the changes of the active set on the way; `start` is not used.

        Every change of the active set needs a step of its own, so that `steps` bounds the steps between two changes.
        """
        shifts, residual, most = np.empty((len(factors), len(self.parameters))), np.empty(len(factors)), 0
        limit = steps if steps <= 1 else max(steps, REOPTIMISATION_STEPS)
        with one_thread():
            for g, row in enumerate(counted(factors, len(factors))):
                optimum = SparseProblem(self.problem, row).optimum(self.parameters, limit, tolerance)
                shifts[g], residual[g] = optimum.theta - self.parameters, optimum.residual
                most = max(most, optimum.steps)
        return NewtonSteps(shifts, residual, most)

    @property
    def fixed_without_steps(self) -> str:
        """Changes of the active set."""
        return "the set of coefficients that are 0 is held fixed"

    @property
    def step_cost(self) -> tuple[float, float]:
        """Floating-point operations: assembly on the active set, and one removal with a few changes of it."""
        entries, active = float(self.problem.features.entries), len(self.active)
        assembly = entries * active * (active / max(self.problem.features.width, 1))
        return self.inner.step_cost[0], CHANGES * (4.0 * entries + assembly + active**3 / 3.0)

    @property
    def diagnostics(self) -> dict[str, Any]:
        """The diagnostics of the Hessian on the active set, the l1, and how many parameters are not 0."""
        facts = dict(self.inner.diagnostics)
        return {**facts, "l1": self.problem.l1, "parameters": int(self.problem.size), "active": len(self.active)}

    def _restricted(self, rows: Rows) -> Rows:
        """The rows on the active set."""
        if not isinstance(rows, FactoredRows):
            return DenseRows(rows.dense()[:, self.active])
        features = self.inner.problem.features
        if len(rows) != len(features):
            return DenseRows(rows.dense()[:, self.active])
        common = None if rows.common is None else rows.common[:, self.active]
        return FactoredRows(features, rows.slopes, rows.share, common)

    def _spread(self, vectors: Array) -> Array:
        """Vectors (k, active) as vectors (k, d) that are 0 elsewhere."""
        out = np.zeros((len(vectors), self.problem.size))
        out[:, self.active] = vectors
        return out

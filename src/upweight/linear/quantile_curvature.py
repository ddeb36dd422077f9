"""The curvature of a quantile regression: the Hessian of the smoothed loss, and removals from vertex to vertex."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import NewtonSteps
from upweight.core.threads import one_thread
from upweight.linear.curvature import LinearCurvature
from upweight.linear.losses.loss import Kinks
from upweight.linear.losses.pinball import SmoothPinballLoss
from upweight.linear.problem import Problem
from upweight.linear.sparse_curvature import SparseCurvature
from upweight.linear.vertex_path import VertexPath

Array = NDArray[np.float64]
EXPECTED_STEPS = 3.0  # assumed Newton steps of one removal; callers multiply the cost of a step by it
SAME = 1e-6  # relative difference of objectives up to which they are one optimum
WIDTH = 1.0  # of the kernel, in mean absolute residuals over the cube root of their number
PIVOTS = 5.0  # assumed number of vertices on the path of one removal


class QuantileCurvature(SparseCurvature):
    """H + λ of the pinball loss, smoothed over many residuals, on the parameters that are not 0.

    The loss itself has no curvature: H holds the density of the residuals at 0, which a kernel of some width estimates
    (Koenker 2005, Quantile Regression, §3.4). Removals are exact: they follow the optimum of the loss itself
    from vertex to vertex (`VertexPath`).
    """

    @cached_property
    def inner(self) -> LinearCurvature:
        """The curvature on the active set, with the loss smoothed over the width of a density estimate."""
        residuals = np.abs(self.problem.targets - self.problem.outputs)[:, 0]
        spread = float(self.problem.mean_of(residuals)) or 1.0
        count = len(residuals) if self.problem.counts is None else float(self.problem.counts.sum())
        family = SmoothPinballLoss(_quantile(self.problem), WIDTH * spread * count ** (-1 / 3))
        active = self.active[self.active < self.problem.features.columns]
        features, theta = self.problem.features.select(active), self.problem.theta[:, self.active]
        smooth = replace(self.problem, features=features, theta=theta, family=family, l1_fixed=0.0, l1_each=0.0)
        return LinearCurvature(smooth, self._recipe, self._damping)

    def reoptimised(self) -> QuantileCurvature:
        """The curvature at the optimum of the loss with kinks."""
        theta = self._path.start
        if np.array_equal(theta, self.parameters):
            return self
        return QuantileCurvature(replace(self.problem, theta=theta[None]), self._recipe, self._damping)

    def newton_steps(self, factors: Array, start: Array | None, steps: int, tolerance: float = 1e-10) -> NewtonSteps:
        """The optima under other example weights, along the vertices to them; `start` and `steps` are not used."""
        shifts = np.empty((len(factors), len(self.parameters)))
        with one_thread():
            for g, row in enumerate(factors):
                shifts[g] = self._path.to(_row_weights(self.problem, row)) - self.parameters
        return NewtonSteps(shifts, np.zeros(len(factors)), steps)

    @property
    def fixed_without_steps(self) -> str:
        """The kinks."""
        return f"scores are those of the {self.problem.family.name}"

    @property
    def step_cost(self) -> tuple[float, float]:
        """Floating-point operations: of the fit, and of the path of one removal."""
        rows, width = len(self.problem.features) + self.problem.size, self.problem.size
        return self.inner.step_cost[0], PIVOTS / EXPECTED_STEPS * (8.0 * rows * width + 4.0 * width**2)

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Those of the Hessian, with a warning for optima that are not one place."""
        facts, undetermined = dict(super().diagnostics), self._path.undetermined
        if undetermined:
            text = (
                f"After {undetermined} removals several quantiles are equally good, as between the two middle ones of "
                "an even number of targets: scores are those of one of them, and a solver may take another."
            )
            facts["warnings"] = [*facts["warnings"], text]
        return facts

    @cached_property
    def _path(self) -> VertexPath:
        return vertex_path(self.problem)


def vertex_path(problem: Problem) -> VertexPath:
    """The path of quantile regression that starts at the optimum on its training set.

    Raises VertexError if the optimum is not one place, because columns depend on each other.
    """
    features = problem.features
    penalised = np.flatnonzero(features.penalised)[: features.width * int(problem.has_l1)]
    kinks = problem.family.kinks(problem.targets[:, 0])
    columns = np.eye(features.width)[penalised]
    places = np.concatenate([kinks.places, np.zeros((len(penalised), 1))])
    forces = np.concatenate([kinks.forces, np.tile([1.0, -1.0], (len(penalised), 1))])
    rows, ones = np.vstack([features.dense(), columns]), np.ones(len(features))
    with one_thread():
        return VertexPath(rows, Kinks(places, forces), problem.theta[0], _row_weights(problem, ones))


def require_optimal_quantiles(problem: Problem, name: str) -> None:
    """Raise ValueError if the parameters are not at the optimum of the loss with kinks: the data are others."""
    given = _objective(problem)
    least = _objective(replace(problem, theta=vertex_path(problem).start[None]))
    spread = float(np.std(problem.targets[problem.weights > 0]))
    if given - least > SAME * (abs(least) + SAME * spread * float(problem.weights.sum())):
        raise ValueError(
            f"expected the data that {name} was fitted on, got examples on which its objective is {given:.6g} at its "
            f"coefficients and {least:.6g} at others; pass the same rows, targets and sample weights as to fit(); if "
            "they are the same, the solver stopped too early: scale the target and the features to a spread of about 1"
        )


def _objective(problem: Problem) -> float:
    """The training objective with kinks, at the parameters."""
    assert isinstance(problem.family, SmoothPinballLoss)
    loss = problem.weights @ problem.family.sharp_loss(problem.outputs, problem.targets)
    return float(loss + problem.l1 * np.abs(problem.theta[0]) @ problem.features.penalised)


def _quantile(problem: Problem) -> float:
    assert isinstance(problem.family, SmoothPinballLoss)
    return problem.family.quantile


def _row_weights(problem: Problem, factors: Array) -> Array:
    """The weights of examples under factors (n,), and the l1 of the penalised columns."""
    l1 = float(problem.l1_of(factors[None])[0])
    penalised = np.full(int(problem.features.penalised.sum()) * int(problem.has_l1), l1)
    return np.concatenate([factors * problem.weights, penalised])

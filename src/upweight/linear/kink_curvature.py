"""The curvature of a loss with kinks: the Hessian of the smoothed loss, and removals that follow the kinks exactly."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import NewtonSteps
from upweight.core.forecast import counted
from upweight.core.threads import one_thread
from upweight.linear.curvature import LinearCurvature
from upweight.linear.kink_intercepts import Intercepts
from upweight.linear.kink_path import KinkPath, PathError
from upweight.linear.solver_choice import solver_for

Array = NDArray[np.float64]
MAX_EXAMPLES = 4000  # training examples up to which their matrix of inner products is held
EXPECTED_STEPS = 3.0  # assumed Newton steps of one removal; callers multiply the cost of a step by it
EVENTS = 10.0  # assumed number of kinks on the path of one removal


class KinkCurvature(LinearCurvature):
    """H + λ of the smoothed loss, at the optimum of the loss with kinks.

    First-order influence is that of the smoothed loss. Removals follow the path of the optimum of the loss itself, from
    kink to kink (`KinkPath`); where that gets stuck, they take Newton steps on the smoothed loss, and a warning counts
    them.
    """

    rows_per_example = 1  # of the matrix of inner products
    stuck = 0  # removals whose path could not be followed

    def reoptimised(self) -> LinearCurvature:
        """The curvature at the optimum of the loss with kinks; of the smoothed one if that is not found."""
        if self._paths is None:
            return super().reoptimised()
        theta = np.stack([self._parameters(*path.start) for path in self._paths])
        problem = replace(self.problem, theta=theta)
        return self.moved(problem, solver_for(problem, self._recipe, self.solver.damping))

    def newton_steps(self, factors: Array, start: Array | None, steps: int, tolerance: float = 1e-10) -> NewtonSteps:
        """The optima under other example weights, along the paths to them."""
        if self._paths is None:
            return super().newton_steps(factors, start, steps, tolerance)
        problem, stuck = self.problem, []
        shifts, residual = np.zeros((len(factors), *problem.shape)), np.zeros(len(factors))
        with one_thread():
            for g, row in enumerate(counted(factors, len(factors))):
                # An objective that averages takes a share of the l2 away, which is more weight on the others.
                weights = row * problem.weights * (problem.ridge / float(problem.ridge_of(row[None])[0]))
                try:
                    for c, path in enumerate(self._paths):
                        shifts[g, c] = self._end(c, path, weights) - problem.theta[c]
                except PathError:
                    stuck.append(g)
        flat = shifts.reshape(len(factors), -1)
        if stuck:
            self.stuck += len(stuck)
            smooth = super().newton_steps(factors[stuck], None, steps, tolerance)
            flat[stuck], residual[stuck] = smooth.shifts, smooth.residual
        return NewtonSteps(flat, residual, steps)

    @property
    def fixed_without_steps(self) -> str:
        """The kinks."""
        return f"scores are those of the {self.problem.family.name}"

    @property
    def step_cost(self) -> tuple[float, float]:
        """Floating-point operations: of the fit, and of the path of one removal."""
        if self._paths is None:
            return super().step_cost
        fit, n = super().step_cost[0], len(self.problem.features)
        at_kinks = max(1, *(path.examples_at_kinks for path in self._paths))
        events = EVENTS / EXPECTED_STEPS * len(self._paths)  # on one path, counted as that many steps
        return fit, events * (4.0 * n * at_kinks + 2.0 / 3.0 * at_kinks**3)

    @property
    def diagnostics(self) -> dict[str, Any]:
        """The diagnostics of the Hessian, with a warning for paths that got stuck."""
        facts = super().diagnostics
        if self._paths is None:
            return {**facts, "warnings": [*facts["warnings"], "Removals are those of the smoothed loss too."]}
        warnings, undetermined = list(facts["warnings"]), sum(path.undetermined for path in self._paths)
        if self.stuck:
            warnings.append(
                f"{self.stuck} removals could not be followed from kink to kink: theirs are those of the smoothed loss."
            )
        if undetermined:
            warnings.append(
                f"After {undetermined} removals no example lies on a margin, so that the intercept may be anywhere in "
                "an interval: scores take its middle, and a solver may take another place."
            )
        return {**facts, "warnings": warnings}

    @cached_property
    def _penalised_features(self) -> Array:
        return np.asarray(self.problem.features.dense() * self.problem.features.penalised)

    @cached_property
    def _paths(self) -> list[KinkPath] | None:
        """The path of every output; None if there are too many examples, or the optimum was not found."""
        problem, features = self.problem, self.problem.features
        if self.rows_per_example * len(features) > MAX_EXAMPLES or not problem.ridge > 0:
            return None
        gram = self._penalised_features @ self._penalised_features.T / problem.ridge
        try:
            with one_thread():
                return [self._path(c, gram) for c in range(problem.family.outputs)]
        except PathError:
            return None

    def _path(self, c: int, gram: Array) -> KinkPath:
        """The path of output c, from the inner products of the penalised columns over the ridge."""
        problem = self.problem
        return KinkPath(
            gram,
            problem.family.kinks(problem.targets[:, c]),
            Intercepts.common(len(gram), int(self._has_free_intercept)),
            problem.outputs[:, c],
            self._used(c) * problem.weights,
        )

    def _end(self, c: int, path: KinkPath, weights: Array) -> Array:
        """θ (d,) of output c at the optimum under these weights (n,)."""
        return self._parameters(*path.to(self._used(c) * weights))

    @property
    def _has_free_intercept(self) -> bool:
        features = self.problem.features
        return bool(features.intercept) and not features.penalised_intercept

    def _used(self, c: int) -> Array:
        """1 for the examples that output c was trained on, (n,): those of one of its classes."""
        targets = self.problem.targets[:, c]
        return np.asarray((targets != 0).astype(np.float64) if self.problem.family.pairwise else np.ones(len(targets)))

    def _parameters(self, forces: Array, intercepts: Array) -> Array:
        """θ (d,) of one output from the forces of the examples and the intercept (1,); (0,) for none."""
        features = self.problem.features
        theta = self._penalised_features.T @ forces / self.problem.ridge
        if self._has_free_intercept:
            theta[-1] = intercepts[0] / features.intercept
        return np.asarray(theta)

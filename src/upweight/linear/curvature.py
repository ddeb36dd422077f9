"""The exact Hessian of a generalised linear model, with leverages, corrections and removals."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import ExactCurvature, NewtonSteps, Solved
from upweight.core.curvature_recipes import Hessian
from upweight.core.rows import DenseRows, Rows
from upweight.linear.conjugate_gradients import ConjugateGradients
from upweight.linear.hessian_solver import HessianSolver
from upweight.linear.leverages import MAX_LEVERAGE_ENTRIES, SUSPECT_LEVERAGE, Leverages
from upweight.linear.newton import CHORD_SHARE, Newton
from upweight.linear.problem import Problem
from upweight.linear.rows import FactoredRows
from upweight.linear.solver_choice import solver_for
from upweight.linear.undetermined import (
    NullSpace,
    leading_eigenvectors,
    only_determined_by,
    singular_warning,
    smallest_norm,
)

Array = NDArray[np.float64]
MAX_FACTORISATIONS = 20  # on the way to the optimum
MANY_STEPS = 20  # allowed steps from which a retraining tries the chord method: more steps, but cheaper ones
MANY_STEPS_CHORD_SHARE = 0.02  # largest share of changed examples with which it does
RETRAINING_TOLERANCE = 1e-10  # at a looser one, Newton's last step ends far below it and the chord method's does not
RETRAINING_LOOSEST = 0.1  # relative residual of the first Newton systems of a retraining, whose steps are many
SAME_HESSIAN = 1e-3  # root mean square change of the outputs up to which the Hessian is taken to be the same


class LinearCurvature(ExactCurvature):
    """H + λ of a `Problem` at its parameters.

    Args:
        problem: the training objective.
        recipe: `Hessian(solver=Direct() | CG())`, None for the best that fits.
        damping: λ on the scale of the mean loss, so λ·Σw is added to the summed Hessian; 0 for none.
        max_leverage_entries: leverage entries (examples × K × K) in memory at a time.
    """

    def __init__(
        self,
        problem: Problem,
        recipe: Hessian | None,
        damping: float,
        max_leverage_entries: int = MAX_LEVERAGE_ENTRIES,
    ) -> None:
        self.problem = problem
        self.solver = solver_for(problem, recipe, damping * float(problem.weights.sum()))
        self._recipe = recipe
        self.leverages = Leverages(self.solver, max_leverage_entries)
        self._before: LinearCurvature | None = None  # kept, so that retrainings of the model share its factorisation

    def matvec(self, vectors: Array) -> Array:
        """(H + λ) v for (k, parameters)."""
        return self.solver.matvec(vectors.reshape(-1, *self.problem.shape)).reshape(vectors.shape)

    def solve(self, rows: Rows) -> Solved:
        """(H + λ)⁻¹ rows; the residual is measured for the direct solver too."""
        gradients = rows.dense()
        if self.null_space is not None:
            gradients = self.null_space.determined(gradients)
        vectors = gradients.reshape(len(rows), *self.problem.shape)
        x = self.solver.solve(vectors)
        residual = self.solver.residual
        if residual is None:
            probe = vectors[:2]  # the relative error of a factorisation is alike for all right-hand sides
            error = np.linalg.norm((self.solver.matvec(x[:2]) - probe).reshape(len(probe), -1), axis=1)
            size = np.linalg.norm(probe.reshape(len(probe), -1), axis=1)
            residual = float((error / np.where(size > 0, size, 1.0)).max(initial=0.0))
        steps = x.reshape(len(x), -1)
        if self.problem.features.sparse:
            steps = np.asfortranarray(steps)  # else every product with a block of sparse rows would copy them
        if self.null_space is not None:
            steps = self.null_space.shortened(steps)
        return Solved(DenseRows(steps), residual, self.solver.steps, self.solver.converged)

    @property
    def parameters(self) -> Array:
        """θ, (K·d,)."""
        return self.problem.theta.ravel()

    def reoptimised(self) -> LinearCurvature:
        """The curvature at the optimum, from where removals are measured; a fit that stopped early is continued to it.

        The Hessian is factored again if the outputs changed on the way. A stiff loss needs this more than once.
        """
        current = self
        for _ in range(MAX_FACTORISATIONS):
            moved = current.newton_steps(np.ones((1, len(current.problem.features))), None, 5)
            if moved.steps == 0:
                break
            theta = current.problem.theta + moved.shifts[0].reshape(current.problem.shape)
            problem = replace(current.problem, theta=theta)
            change = np.sqrt(problem.mean_of(((problem.outputs - current.problem.outputs) ** 2).mean(axis=1)))
            is_same = change < SAME_HESSIAN
            solver = current.solver.at(problem) if is_same else solver_for(problem, self._recipe, self.solver.damping)
            before = self if is_same and current is self else None
            current = current.moved(problem, solver)
            current._before = before
            if is_same:
                break
        return current

    def moved(self, problem: Problem, solver: HessianSolver) -> Self:
        """The same curvature at other parameters."""
        moved = copy(self)
        moved.problem, moved.solver = problem, solver
        moved.leverages = Leverages(solver, self.leverages.max_entries)
        return moved

    @cached_property
    def null_space(self) -> NullSpace | None:
        """Directions that no example determines, if the Hessian of a squared loss is singular."""
        return NullSpace.of(self.solver)

    @property
    def calibrated(self) -> bool:
        """True: this is the Hessian of the training objective."""
        return True

    def expected(self) -> LinearCurvature:
        """The curvature with the expected information; itself if the second derivatives do not depend on targets."""
        family = self.problem.family.expected()
        if family is self.problem.family:
            return self
        problem = replace(self.problem, family=family)
        return LinearCurvature(
            problem, self._recipe, self.solver.damping / float(problem.weights.sum()), self.leverages.max_entries
        )

    def leverage(self) -> Array:
        """h_i = tr(wᵢ Aᵢ Sᵢ): (n,)."""
        return self.leverages.per_example.copy()

    def corrected(self, rows: Rows) -> FactoredRows:
        """Rows with the leverage correction."""
        return self.leverages.corrected(rows)

    def undetermined(self) -> dict[int, Array]:
        """For examples of leverage 1: the directions (r, K·d) that no other example determines."""
        return self.leverages.undetermined()

    def undetermined_without(self, group: NDArray[np.bool_]) -> Array:
        """The directions (r, K·d) that only these examples (n,) determine.

        They are eigenvectors of H⁻¹H_U of eigenvalue 1, whose trace is the sum of the leverages.
        """
        none = np.empty((0, self.problem.size))
        has_l2 = float(self.problem.ridge_of(1.0 - group.astype(np.float64))) > 0
        if has_l2 or self.solver.damping > 0 or isinstance(self.solver, ConjugateGradients):
            return none
        if self.leverages.per_example[group].sum() < SUSPECT_LEVERAGE:
            return none
        inside = group[None].astype(np.float64)

        def share(v: Array) -> Array:
            return self.solver.solve(self.part_matvec(inside, v[None]).reshape(1, *self.problem.shape)).ravel()

        directions = leading_eigenvectors(share, self.problem.size, SUSPECT_LEVERAGE)
        return only_determined_by(self.solver, group, directions.reshape(-1, *self.problem.shape))

    def smallest(self, parameters: Array, directions: Array) -> Array:
        """The parameters (K·d,) moved along undetermined directions (r, K·d) to the smallest norm."""
        free = directions if self.null_space is None else np.vstack([directions, self.null_space.directions])
        return smallest_norm(self.problem, parameters, free)

    def paired(self, left: Rows, right: Rows) -> Array:
        """leftᵢᵀ H⁻¹ rightᵢ through the leverages, for rows of the training examples themselves."""
        return self.leverages.paired(left, right)

    def part_matvec(self, membership: Array, vectors: Array) -> Array:
        """Σ_{i∈U} wᵢ (X̃ᵢᵀ Aᵢ X̃ᵢ + each·M) v for every group."""
        problem, parameters = self.problem, vectors.reshape(-1, *self.problem.shape)
        out = np.zeros_like(parameters)
        for g, (inside, v) in enumerate(zip(membership, parameters, strict=True)):
            where = np.flatnonzero(inside)
            part = problem.features.take(where)
            curved = np.einsum("nck,nk->nc", problem.second_derivatives(where), part.times(v.T)) * inside[where, None]
            out[g] = part.transposed_times(curved).T + problem.each * (
                inside @ problem.carried
            ) * problem.penalty_gradient(v)
        return out.reshape(vectors.shape)

    def newton_steps(self, factors: Array, start: Array | None, steps: int, tolerance: float = 1e-10) -> NewtonSteps:
        """Newton steps under other example weights; each system is solved only as exactly as the tolerance needs."""
        forcing = 0.03 if start is not None else 1e-6
        is_retraining = steps >= MANY_STEPS and tolerance <= RETRAINING_TOLERANCE
        share = MANY_STEPS_CHORD_SHARE if is_retraining else CHORD_SHARE
        loosest = RETRAINING_LOOSEST if is_retraining else 0.0
        newton = Newton(self.problem, self.solver, chord_share=share, loosest=loosest)
        moved = newton.newton_steps(factors, start, steps, tolerance, forcing)
        if self.null_space is None:
            return moved
        return replace(moved, shifts=self.null_space.shortened(moved.shifts))

    @property
    def step_cost(self) -> tuple[float, float]:
        """Floating-point operations of (assembly and factorisation, one Newton step of one removal: three products)."""
        outputs, width = self.problem.shape
        n, counted = len(self.problem.features), np.count_nonzero(self.problem.weights)
        entries = float(self.problem.features.entries) * (counted / n)  # without rows of weight 0
        pairs = outputs * (outputs + 1) / 2 if self.problem.family.coupled else outputs
        once = pairs * entries * (entries / counted) + self.solver.factorisation_cost
        return once, 14.0 * entries * outputs + 300.0 * counted * outputs + 6.0 * outputs * width * self.solver.height

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Kind, solver, size, l2, damping, and warnings about singularity and convergence."""
        warnings = []
        if self.solver.jitter:
            warnings.append(singular_warning(self.solver, self.null_space))
        if not self.solver.converged:
            warnings.append(f"Conjugate gradients stopped at a relative residual of {self.solver.residual:.2g}.")
        return {
            "curvature": f"exact Hessian of the {self.problem.family.name}",
            "solver": self.solver.name,
            "parameters": int(self.problem.size),
            "l2": self.problem.ridge,
            "damping": self.solver.damping,
            "coverage": 1.0,
            "warnings": warnings,
        }

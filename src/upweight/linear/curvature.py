"""The Hessian of a generalised linear model, with leverages and removals: everything exact."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import ExactCurvature, Moved, Solved
from upweight.core.curvature_recipes import CG, Direct, Hessian
from upweight.core.rows import DenseRows, Rows
from upweight.linear.cholesky import BlockCholesky, JointCholesky
from upweight.linear.conjugate_gradients import ConjugateGradients
from upweight.linear.hessian_solver import HessianSolver
from upweight.linear.newton import Newton
from upweight.linear.problem import Problem
from upweight.linear.rows import FactoredRows

Array = NDArray[np.float64]
LARGEST = 15_000  # parameters up to which a factorisation is taken
ENTRIES = 10_000_000  # leverage entries (examples × K × K) that are held at a time
SETTLING = 20  # factorisations on the way to the optimum at most
NEAR = 1e-3  # output change (root mean square) up to which the Hessian is the same for every purpose
CAP = 1 - 1e-9  # a leverage of 1 means that the model passes through the point, and removal has no first-order answer


class LinearCurvature(ExactCurvature):
    """H + λ of a `Problem` at its parameters.

    Args:
        problem: the training objective.
        recipe: `Hessian(solver=Direct() | CG())`, None for the best that fits.
        damping: λ on the scale of the mean loss, so λ·Σw is added to the summed Hessian; 0 for none.
    """

    def __init__(self, problem: Problem, recipe: Hessian | None, damping: float) -> None:
        self.problem = problem
        self.solver = _solver_for(problem, recipe, damping * float(problem.weights.sum()))
        self._recipe = recipe
        self._high_leverage = 0
        self._kept: Array | None = None

    def matvec(self, vectors: Array) -> Array:
        """(H + λ) v for (k, parameters)."""
        return self.solver.matvec(vectors.reshape(-1, *self.problem.shape)).reshape(vectors.shape)

    def solve(self, rows: Rows) -> Solved:
        """(H + λ)⁻¹ rows; the residual is measured, for the direct solver too."""
        wide = rows.dense().reshape(len(rows), *self.problem.shape)
        x = self.solver.solve(wide)
        residual = self.solver.residual
        if residual is None:
            probe = wide[:2]  # a factorisation errs alike for all right-hand sides
            left = np.linalg.norm((self.solver.matvec(x[:2]) - probe).reshape(len(probe), -1), axis=1)
            size = np.linalg.norm(probe.reshape(len(probe), -1), axis=1)
            residual = float((left / np.where(size > 0, size, 1.0)).max(initial=0.0))
        return Solved(DenseRows(x.reshape(len(x), -1)), residual, self.solver.steps, self.solver.converged)

    @property
    def parameters(self) -> Array:
        """θ, (K·d,)."""
        return self.problem.theta.ravel()

    def settled(self) -> LinearCurvature:
        """At the optimum: a model whose solver stopped early is followed to where removals are measured from.

        The factor is renewed where the way there changed the outputs (a stiff loss needs that more than once).
        """
        here = self
        for _ in range(SETTLING):
            moved = here.after(np.ones((1, len(here.problem.features))), None, 5)
            if moved.steps == 0:
                break
            theta = here.problem.theta + moved.shifts[0].reshape(here.problem.shape)
            problem = replace(here.problem, theta=theta)
            far = np.sqrt(problem.mean_of(((problem.outputs - here.problem.outputs) ** 2).mean(axis=1)))
            there = copy(here)
            there.problem, there._kept = problem, None
            near = far < NEAR
            there.solver = here.solver.at(problem) if near else _solver_for(problem, self._recipe, self.solver.damping)
            here = there
            if near:
                break
        return here

    @property
    def calibrated(self) -> bool:
        """True: it is the training objective's own Hessian."""
        return True

    def leverages(self) -> Iterator[tuple[slice, Array]]:
        """S_i = X̃ᵢ H⁻¹ X̃ᵢᵀ for consecutive examples: (which, (b, K, K)); kept after the first pass if they fit."""
        n, outputs = len(self.problem.features), self.problem.family.outputs
        size = max(1, ENTRIES // outputs**2)
        pieces = [slice(start, min(start + size, n)) for start in range(0, n, size)]
        if self._kept is not None:
            yield pieces[0], self._kept
            return
        for where, s in zip(pieces, self.solver.leverages(pieces), strict=True):
            full = s if s.ndim == 3 else s[:, :, None] * np.eye(outputs)
            if len(pieces) == 1:
                self._kept = full
            yield where, full

    def leverage(self) -> Array:
        """h_i = tr(wᵢ Aᵢ Sᵢ): (n,)."""
        h = np.empty(len(self.problem.features))
        for where, s in self.leverages():
            h[where] = np.einsum("nck,nkc->n", self._second(where), s)
        return h

    def corrected(self, rows: Rows) -> FactoredRows:
        """Slopes r̃ᵢ = (I − wᵢAᵢSᵢ)⁻¹ (rᵢ + regulariser share): H⁻¹ row is then the Newton step of removing one.

        Source: Pregibon (1981) for one output; Rad & Maleki (2020), ALO, for the matrix form. An objective that
        averages also loses 1/n of its regulariser's curvature with an example, which is left in.
        """
        rows = _factored(rows)
        slopes = rows.slopes.copy()
        if rows.common is not None and rows.share is not None:
            slopes += (
                self.problem.derivatives.apply(self._outputs_of(rows.common))
                * (self.problem.weights * rows.share)[:, None]
            )
        self._high_leverage = 0
        for where, s in self.leverages():
            left = np.eye(s.shape[1]) - self._second(where) @ s
            flat = np.abs(np.linalg.det(left)) < 1 - CAP
            self._high_leverage += int(flat.sum())
            left[flat] += (1 - CAP) * np.eye(s.shape[1])
            slopes[where] = np.linalg.solve(left, slopes[where][..., None])[..., 0]
        return FactoredRows(rows.features, slopes, rows.share, rows.common)

    def paired(self, left: Rows, right: Rows) -> Array:
        """leftᵢᵀ H⁻¹ rightᵢ through the leverages, for rows of the training examples themselves."""
        left, right = _factored(left), _factored(right)
        out = np.empty(len(right))
        for where, s in self.leverages():
            out[where] = np.einsum("nc,nck,nk->n", left.slopes[where], s, right.slopes[where])
        if right.common is not None and right.share is not None:
            out += right.share * np.einsum("nc,nc->n", left.slopes, self._outputs_of(right.common))
        if left.common is not None and left.share is not None:
            out += left.share * np.einsum("nc,nc->n", right.slopes, self._outputs_of(left.common))
            if right.common is not None and right.share is not None:
                both = float((left.common * self.solver.solve(right.common[None])[0]).sum())
                out += left.share * right.share * both
        return out

    def part_matvec(self, member: Array, vectors: Array) -> Array:
        """Σ_{i∈U} wᵢ (X̃ᵢᵀ Aᵢ X̃ᵢ + each·M) v for every group."""
        problem, wide = self.problem, vectors.reshape(-1, *self.problem.shape)
        out = np.zeros_like(wide)
        for g, (inside, v) in enumerate(zip(member, wide, strict=True)):
            where = np.flatnonzero(inside)
            part = problem.features.take(where)
            bent = np.einsum("nck,nk->nc", self._second(where), part.times(v.T)) * inside[where, None]
            out[g] = part.transposed_times(bent).T + problem.each * (
                inside @ problem.carried
            ) * problem.penalty_gradient(v)
        return out.reshape(vectors.shape)

    def after(self, kept: Array, start: Array | None, steps: int, tolerance: float = 1e-10) -> Moved:
        """Newton steps under other example weights; each system only as exact as the goal needs."""
        forcing = 0.03 if start is not None else 1e-6
        return Newton(self.problem, self.solver).after(kept, start, steps, tolerance, forcing)

    @property
    def step_cost(self) -> tuple[float, float]:
        """(assembly and factorisation, one Newton step of one removal with its three products)."""
        outputs, width = self.problem.shape
        n, counted = len(self.problem.features), np.count_nonzero(self.problem.weights)
        entries = float(self.problem.features.entries) * (counted / n)  # as if rows of weight 0 were not there
        pairs = outputs * (outputs + 1) / 2 if self.problem.family.coupled else outputs
        once = pairs * entries * (entries / counted) + self.problem.size**3 / 3
        return once, 14.0 * entries * outputs + 300.0 * counted * outputs + 6.0 * outputs * width * self.solver.height

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Kind, size, damping and its origin, and what was met on the way."""
        warnings = []
        if self.solver.jitter:
            warnings.append(
                f"The Hessian is singular (no l2, dependent columns): damped by {self.solver.jitter:.2g}; directions "
                "that the data do not determine have no effect on scores, others change by a relative 1e-10."
            )
        if self._high_leverage:
            warnings.append(
                f"{self._high_leverage} training examples have leverage 1: the model passes through them only because "
                "they are there, and what happens without them is not determined by the others."
            )
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

    def _outputs_of(self, vector: Array) -> Array:
        """X H⁻¹ v for one v (K, d): (n, K)."""
        return self.problem.features.times(self.solver.solve(vector[None])[0].T)

    def _second(self, where: Any) -> Array:
        """wᵢ Aᵢ as (b, K, K)."""
        d = self.problem.derivatives
        a = d.diagonal[where][:, :, None] * np.eye(d.diagonal.shape[1])
        if d.outer is not None:
            a -= d.outer[where][:, :, None] * d.outer[where][:, None, :]
        return np.asarray(a * self.problem.weights[where][:, None, None])


def _factored(rows: Rows) -> FactoredRows:
    if not isinstance(rows, FactoredRows):
        raise TypeError(f"expected the rows of this model's training examples, got {type(rows).__name__}")
    return rows


def _solver_for(problem: Problem, recipe: Hessian | None, damping: float) -> HessianSolver:
    solver = None if recipe is None else recipe.solver
    matrix = problem.size if problem.family.coupled else problem.features.width
    if solver is None:
        solver = Direct() if matrix <= LARGEST else CG()
    if isinstance(solver, CG):
        return ConjugateGradients(problem, damping, solver.tolerance, solver.steps)
    return (
        JointCholesky(problem, damping)
        if problem.family.coupled and problem.family.outputs > 1
        else BlockCholesky(problem, damping)
    )

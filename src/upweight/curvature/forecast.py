"""What fitting and asking a curvature of a network will take: the steps of each curvature, timed by a `Pilot`.

A step is a number of passes over examples, whose time a pilot measures, or a number of matrix products, whose rate is
measured. The forms are chosen by the same limits as in the fit itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from upweight.core.curvature_recipes import (
    CG,
    EKFAC,
    KFAC,
    Arnoldi,
    CurvatureRecipe,
    DataInf,
    Diagonal,
    EmpiricalFisher,
    Hessian,
    Identity,
    LiSSA,
    Nystrom,
)
from upweight.core.examples import Examples
from upweight.core.forecast import Forecast
from upweight.curvature.eigenvalue_sample import eigenvalue_count
from upweight.curvature.ekfac import second_moments
from upweight.curvature.kfac import FactoredLayer, factor_sums
from upweight.curvature.linear_head import is_linear_head
from upweight.curvature.pilot import Pilot

COPIES_IN_CG = 11  # of the queries' vectors: right sides, solutions, residuals, directions, products, temporary ones
CG_STEPS_PER_DIGIT = 2.5  # of the residual, in a preconditioned solve


def forecast_fit(pilot: Pilot, recipe: CurvatureRecipe | None) -> Forecast:
    """What fitting this curvature takes. Raises NoOutputsError if it is impossible for the loss."""
    fit = _fit(pilot, recipe)
    return Forecast(fit.parts, fit.bytes + pilot.working_bytes if fit.parts else 0.0)


def _fit(pilot: Pilot, recipe: CurvatureRecipe | None) -> Forecast:
    n, size = len(pilot.summed.train), pilot.network.size
    match recipe:
        case KFAC() | EKFAC():
            most = recipe.eigenvalue_examples if isinstance(recipe, EKFAC) else 0
            return _factored(pilot, min(n, (eigenvalue_count(pilot.summed) or n) if most is None else most))
        case Diagonal():
            return Forecast({"squares": n * pilot.capture}, 4.0 * size)
        case DataInf():
            return Forecast({"norms": n * pilot.capture}, 4.0 * size)
        case EmpiricalFisher():
            steps = {"gradients": pilot.held_passes(n) * pilot.capture, "inner products": n**2 / 2 * pilot.pair}
            return Forecast({**steps, "factorisation": n**3 / 3 / pilot.flops}, 16.0 * n**2)
        case Identity():
            return Forecast()
    return _with_solver(pilot, recipe)


def forecast_answer(pilot: Pilot, recipe: CurvatureRecipe | None, queries: int) -> Forecast:
    """What solving for this many queries takes, and their products with all training gradients."""
    n, size = len(pilot.summed.train), pilot.network.size
    solve, memory = 0.0, 8.0 * queries * n
    kind = pilot.form(recipe)
    is_of_pairs = kind in ("dual", "DataInf", "Identity")  # their products are of two captured gradients
    pair = pilot.pair if is_of_pairs else pilot.vector_pair
    if kind == "CG":
        solve = _steps(recipe, n) * n * queries * pilot.product
        memory += COPIES_IN_CG * 4.0 * queries * size
    elif kind == "dual":
        rows = pilot.roots * n
        solve = rows * (queries + n) * pilot.pair + 2 * rows**2 * queries / pilot.flops
    elif kind == "direct":
        solve = 2 * size**2 * queries / pilot.flops
    elif kind == "Fisher":
        solve, pair = n * queries * pilot.pair + 2 * n**2 * queries / pilot.flops, 2 * n / pilot.flops
    elif kind == "DataInf":
        solve = 2 * n * queries * pilot.pair
    elif kind != "Identity":
        memory += 4.0 * queries * size
    passes = pilot.held_passes(queries) * n * pilot.capture
    steps = {"solving for queries": solve, "training gradients": passes, "scores": n * queries * pair}
    return Forecast(steps, memory + pilot.working_bytes)


def _factored(pilot: Pilot, refined_by: int) -> Forecast:
    """KFAC or EK-FAC: passes for the factors, eigenvectors, and passes over so many examples for second moments."""
    summed, n = pilot.summed, len(pilot.summed.train)
    layers, _, _ = factor_sums(summed, (pilot.examples, summed.weights[: len(pilot.examples)]))
    widths = [len(factor) for layer in layers.values() for factor in (layer.inputs, layer.slopes) if factor.ndim == 2]
    batch = pilot.inspection.batch_size
    of_factors = pilot.per_example(lambda part: factor_sums(summed, _weighted(pilot, part)), batch, is_warm=True)
    steps = {"factors": n * of_factors}
    steps["eigenvectors"] = _eigenvector_seconds(pilot, widths)
    if refined_by:
        for layer in layers.values():
            _pretend_eigenvectors(layer)
        moments = pilot.per_example(lambda part: second_moments(summed, layers, {}, _weighted(pilot, part)), batch)
        steps["second moments"] = refined_by * moments
    return Forecast(steps, 4.0 * (4 * sum(width**2 for width in widths) + 2 * pilot.network.size))


def _weighted(pilot: Pilot, part: Examples) -> tuple[Examples, Any]:
    return part, pilot.summed.weights[: len(part)]


def _pretend_eigenvectors(layer: FactoredLayer) -> None:
    """Matrices of the shape of eigenvectors: what is done with them takes as long."""
    layer.right = layer.inputs.clone() if layer.inputs.ndim == 2 else None
    layer.left = layer.slopes.clone() if layer.slopes.ndim == 2 else None
    layer.values = layer.inputs.new_zeros(len(layer.slopes), len(layer.inputs))


def _eigenvector_seconds(pilot: Pilot, widths: list[int]) -> float:
    """Seconds of the decompositions of symmetric matrices in float64, from that of a small one."""
    width = min(max(widths, default=1), 128)
    matrix = torch.eye(width, dtype=torch.float64, device=pilot.network.device)
    matrix += torch.linspace(0, 1, width, dtype=torch.float64, device=pilot.network.device)[:, None] * matrix.flip(0)
    seconds = pilot.timed(lambda: torch.linalg.eigh(matrix + matrix.T))
    small = sum(seconds * (w / width) ** 2.0 for w in widths if w <= width)
    # beyond the small one, time grows as the cube, at a better rate
    return float(small + sum(seconds * (w / width) ** 2.7 for w in widths if w > width))


def _with_solver(pilot: Pilot, recipe: CurvatureRecipe | None) -> Forecast:
    """Gauss–Newton or Hessian: a matrix that is factored, its dual form, or a preconditioner."""
    n, size = len(pilot.summed.train), pilot.network.size
    form, limits = pilot.form(recipe), pilot.summed.limits
    if form == "direct":
        outputs = getattr(pilot.operator, "outputs_per_example", size)
        is_gauss_newton = not isinstance(recipe, Hessian)
        factorisation = 2 * size**3 / 3 / pilot.flops
        if is_linear_head(pilot.summed):  # symmetric blocks of a matrix of outputs × inputs, no passes
            return Forecast({"matrix": n * size**2 / pilot.flops, "factorisation": factorisation}, 24.0 * size**2)
        columns = outputs if is_gauss_newton else size
        passes = n * columns * pilot.product
        squares = 4 * n * outputs * size**2 / pilot.flops if is_gauss_newton else 0.0
        steps = {"matrix": passes + squares, "factorisation": factorisation}
        return Forecast(steps, 24.0 * size**2)
    if form == "dual":
        rows = pilot.roots * n
        steps = {
            "roots": pilot.held_passes(int(rows)) * rows * pilot.capture,
            "inner products": rows**2 / 2 * pilot.pair,
        }
        return Forecast({**steps, "factorisation": rows**3 / 3 / pilot.flops}, 4.0 * rows**2 + 8.0 * rows * n)
    solver = None if recipe is None else getattr(recipe, "solver", None)
    rank = 0
    if isinstance(solver, Nystrom):
        rank = solver.rank
    elif isinstance(solver, Arnoldi):
        rank = solver.steps
    elif not isinstance(recipe, Hessian):
        rank = min(limits.sketch_rank, size)
        if rank * size > limits.sketch_numbers:
            return _factored(pilot, n)
    sketch = n * rank * pilot.product
    orthogonal = 8 * size * rank**2 / pilot.flops
    return Forecast({"sketch": sketch, "orthogonalisation": orthogonal}, 12.0 * size * max(rank, 1))


def _steps(recipe: CurvatureRecipe | None, n: int) -> float:
    """Products with the matrix that an iterative solve of one column takes."""
    solver = getattr(recipe, "solver", None)
    if isinstance(solver, Arnoldi | Nystrom):
        return 1.0
    if isinstance(solver, LiSSA):
        return solver.depth * solver.repeats * min(1.0, solver.batch / n)
    cg = solver or (CG(tolerance=1e-4, steps=200) if isinstance(recipe, Hessian) else CG(tolerance=1e-3, steps=30))
    per_digit = CG_STEPS_PER_DIGIT if not isinstance(recipe, Hessian) else 10 * CG_STEPS_PER_DIGIT
    return float(min(cg.steps, 1 - np.log10(cg.tolerance) * per_digit))

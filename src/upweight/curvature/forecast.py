"""What fitting and asking a curvature of a network will take: the steps of each curvature, timed by a `Pilot`.

A step is a number of passes over examples, whose time a pilot measures, or a number of matrix products, whose rate is
measured. The forms are chosen by the same limits as in the fit itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from upweight.core.curvature import PAIR_BLOCK
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
from upweight.curvature.damping import COMPARED_QUERIES, POLYNOMIAL_DEGREE
from upweight.curvature.datainf import PAIRED_ROWS
from upweight.curvature.eigenvalue_sample import eigenvalue_count
from upweight.curvature.ekfac import second_moments
from upweight.curvature.gauss_newton import DEFAULT_CG
from upweight.curvature.hessian import DEFAULT_CG as HESSIAN_CG
from upweight.curvature.kfac import FactoredLayer, factor_sums
from upweight.curvature.linear_head import is_linear_head
from upweight.curvature.pilot import BYTES_WRITTEN, Pilot
from upweight.curvature.solvers.dual import PROBED_ROWS
from upweight.gradients.held_numbers import MAX_CACHED_NUMBERS, held_numbers

COPIES_OF_PRODUCTS = 2  # of the inner products of all pairs: in a batch's matrix and in the whole one
COPIES_OF_GRAM = 5  # of an empirical Fisher in float64, until it is factored
COPIES_OF_SOLUTIONS = 2  # of solutions for queries: right sides and solutions
COPIES_OF_KERNEL = 4  # of the products of roots with training gradients, as they are computed and scaled
BYTES_OF_A_KERNEL = 24.0  # of a product of a root with a training gradient: as it is computed, kept, and scaled
COPIES_OF_A_SKETCH = 3  # random vectors, their products, and the rotated ones
COPIES_IN_CG = 11  # of the queries' vectors: right sides, solutions, residuals, directions, products, temporary ones
CG_STEPS_PER_DIGIT = 3.3  # of the residual, in a preconditioned solve
HESSIAN_STEPS_PER_DIGIT = 25.0  # in one without a preconditioner, if a pilot is too small to count them


def forecast_fit(pilot: Pilot, recipe: CurvatureRecipe | None) -> Forecast:
    """What fitting this curvature takes. Raises NoOutputsError if it is impossible for the loss."""
    fit = _fit(pilot, recipe)
    return Forecast(fit.parts, fit.bytes + pilot.batch_bytes if fit.parts else 0.0)


def _fit(pilot: Pilot, recipe: CurvatureRecipe | None) -> Forecast:
    n, size = len(pilot.summed.train), pilot.network.size
    match recipe:
        case KFAC() | EKFAC():
            most = recipe.eigenvalue_examples if isinstance(recipe, EKFAC) else 0
            return _factored(pilot, min(n, (eigenvalue_count(pilot.summed) or n) if most is None else most))
        case Diagonal():
            return Forecast({"squares": n * pilot.squares}, float(pilot.number_bytes * size))
        case DataInf():
            return Forecast({"norms": n * pilot.ready}, pilot.held_bytes(n, held_numbers(MAX_CACHED_NUMBERS)))
        case EmpiricalFisher():
            steps = {
                "gradients": n * pilot.held_passes(n) * pilot.ready,
                "inner products": n**2 * (pilot.pair / 2 + COPIES_OF_GRAM * pilot.written),
            }
            memory = max(16.0 * n**2, 8.0 * n**2 + COPIES_OF_PRODUCTS * pilot.number_bytes * n**2) + pilot.paired_bytes(
                n
            )
            return Forecast({**steps, "factorisation": n**3 / 3 / pilot.wide_flops}, memory)
        case Identity():
            return Forecast()
    return _with_solver(pilot, recipe)


def forecast_answer(pilot: Pilot, recipe: CurvatureRecipe | None, queries: int) -> Forecast:
    """What solving for this many queries takes, and their products with all training gradients."""
    n, size = len(pilot.summed.train), pilot.network.size
    solve, memory, passes = 0.0, 8.0 * queries * n, pilot.held_passes(queries)
    kind = pilot.form(recipe)
    if kind == "DataInf":
        return _data_inf_answer(pilot, queries)
    pair = pilot.pair if kind in ("dual", "Identity") else pilot.vector_pair
    if kind == "CG":
        solve = _steps(pilot, recipe, queries) * n * queries * pilot.product(recipe)
        memory += COPIES_IN_CG * pilot.number_bytes * queries * size
    elif kind == "dual":
        rows = pilot.roots * n
        kernels = rows * ((queries + n) * pilot.pair + COPIES_OF_KERNEL * n * pilot.written)
        compared = POLYNOMIAL_DEGREE * min(queries, COMPARED_QUERIES)
        solve = kernels + 2 * rows**2 * (queries + compared) / pilot.flops
        # The residual takes solutions of a few queries by one more pass over the roots, and a product with them.
        solve += rows * pilot.ready + min(PROBED_ROWS, queries) * n * pilot.product(recipe)
        memory += pilot.number_bytes * rows**2 + BYTES_OF_A_KERNEL * rows * n + pilot.paired_bytes(int(rows))
    elif kind == "direct":
        solve = 2 * size**2 * queries / pilot.flops
    elif kind == "Fisher":
        compared = POLYNOMIAL_DEGREE * min(queries, COMPARED_QUERIES)
        solve = n * queries * pilot.pair + 2 * n**2 * (2 * queries + compared) / pilot.wide_flops
        pair, passes = 2 * n / pilot.wide_flops + n / queries * pilot.written, 1.0
        memory += 16.0 * n**2 + pilot.paired_bytes(n)
    if kind == "Identity":
        memory += pilot.paired_bytes(queries)
    elif kind not in ("CG", "dual", "Fisher"):
        memory += COPIES_OF_SOLUTIONS * pilot.number_bytes * queries * size
    if kind not in ("Identity", "dual", "Fisher"):
        passes = 1.0
    steps = {"solving for queries": solve, "training gradients": passes * n * pilot.ready, "scores": n * queries * pair}
    return Forecast(steps, memory + (pilot.graph_bytes if kind == "CG" else pilot.batch_bytes))


def forecast_pairs(pilot: Pilot, recipe: CurvatureRecipe | None) -> Forecast:
    """What solving for every training example takes, each multiplied with itself alone: block after block."""
    n, size = len(pilot.summed.train), pilot.network.size
    block = forecast_answer(pilot, recipe, min(PAIR_BLOCK, n))
    solve = block.parts["solving for queries"] * n / min(PAIR_BLOCK, n)
    new_memory = size * pilot.written * pilot.number_bytes / BYTES_WRITTEN  # of a solution; what follows is in place
    products = n * (PAIR_BLOCK * pilot.vector_pair + new_memory)
    return Forecast({"solving for training examples": solve + 2 * n * pilot.ready + products}, block.bytes)


def _data_inf_answer(pilot: Pilot, queries: int) -> Forecast:
    """The same for DataInf: by vectors of few queries, else by the products of all pairs of training gradients."""
    n, size, floats = len(pilot.summed.train), pilot.network.size, int(pilot.floats)
    is_kept = n * floats <= min(MAX_CACHED_NUMBERS, pilot.summed.limits.held_numbers)
    layers = len({name.rpartition(".")[0] for name in pilot.network.names})
    dual = 8.0 * layers * queries * n
    if 2 * queries * size < n * floats:
        steps = {"solving for queries": 2 * n * queries * pilot.vector_pair, "scores": n * queries * pilot.vector_pair}
        passes, memory = (
            3.0,
            COPIES_OF_SOLUTIONS * pilot.number_bytes * queries * size + pilot.paired_bytes(n if is_kept else 0),
        )
    else:
        weighted = 2 * layers * queries * n**2 / pilot.wide_flops
        products = n**2 * (pilot.pair + layers * COPIES_OF_PRODUCTS * pilot.written)
        steps = {"solving for queries": n * queries * pilot.pair, "scores": products + weighted}
        passes, memory = 2 + pilot.held_passes(n), pilot.paired_bytes(n) + 16.0 * PAIRED_ROWS * n
    gradients = 0.0 if is_kept else passes * n * pilot.ready
    return Forecast(
        {**steps, "training gradients": gradients}, 8.0 * queries * n + 2 * dual + memory + pilot.batch_bytes
    )


def _factored(pilot: Pilot, refined_by: int) -> Forecast:
    """KFAC or EK-FAC: passes for the factors, eigenvectors, and passes over so many examples for second moments."""
    summed, n = pilot.summed, len(pilot.summed.train)
    batch, layers = pilot.inspection.batch_size, dict[str, FactoredLayer]()
    of_factors = pilot.per_example(lambda part: layers.update(factor_sums(summed, _weighted(pilot, part))[0]), batch)
    widths = [len(factor) for layer in layers.values() for factor in (layer.inputs, layer.slopes) if factor.ndim == 2]
    steps = {"factors": n * of_factors}
    steps["eigenvectors"] = _eigenvector_seconds(pilot, widths)
    if refined_by:
        for layer in layers.values():
            _pretend_eigenvectors(layer)
        moments = pilot.per_example(
            lambda part: second_moments(summed, layers, {}, _weighted(pilot, part)), batch, is_warm=True
        )
        steps["second moments"] = refined_by * moments
    return Forecast(steps, pilot.number_bytes * (4.0 * sum(width**2 for width in widths) + 2 * pilot.network.size))


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
        passes = n * (outputs * pilot.capture if is_gauss_newton else size * pilot.product(recipe))
        squares = 4 * n * outputs * size**2 / pilot.flops if is_gauss_newton else 0.0
        steps = {"matrix": passes + squares, "factorisation": factorisation}
        return Forecast(steps, 24.0 * size**2)
    if form == "dual":
        rows = pilot.roots * n
        steps = {
            "roots": pilot.held_passes(int(rows)) * rows * pilot.ready,
            "inner products": rows**2 * (pilot.pair / 2 + COPIES_OF_PRODUCTS * pilot.written),
        }
        memory = COPIES_OF_PRODUCTS * pilot.number_bytes * rows**2 + pilot.paired_bytes(int(rows))
        return Forecast({**steps, "factorisation": rows**3 / 3 / pilot.flops}, memory)
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
    sketch = n * rank * pilot.product(recipe) if rank else 0.0
    orthogonal = 8 * size * rank**2 / pilot.flops
    graphs = max(pilot.graph_bytes - pilot.batch_bytes, 0.0)
    held = COPIES_OF_A_SKETCH * pilot.number_bytes * size * max(rank, 1)
    return Forecast({"sketch": sketch, "orthogonalisation": orthogonal}, held + graphs)


def _preconditioned_steps(pilot: Pilot, cg: CG) -> float:
    """Steps with a preconditioner: by the condition number κ that it leaves, else by experience.

    With every step the error falls to (√κ − 1)/(√κ + 1) at most.
    """
    digits = -np.log10(cg.tolerance)
    if pilot.condition is None:
        return float(digits * CG_STEPS_PER_DIGIT)
    root = np.sqrt(pilot.condition)
    return float(max(1.0, digits / np.log10((root + 1) / max(root - 1, np.finfo(float).eps))))


def _steps(pilot: Pilot, recipe: CurvatureRecipe | None, queries: int) -> float:
    """Products with the matrix that an iterative solve of one column takes."""
    n, solver = len(pilot.summed.train), getattr(recipe, "solver", None)
    if isinstance(solver, Arnoldi | Nystrom):
        return 1.0
    if isinstance(solver, LiSSA):
        return solver.depth * solver.repeats * min(1.0, solver.batch / n)
    if not isinstance(recipe, Hessian):
        cg = solver or DEFAULT_CG
        return 1 + min(cg.steps, _preconditioned_steps(pilot, cg))
    cg = solver or HESSIAN_CG
    counted = pilot.steps(cg, queries)
    if counted is not None:
        return counted + 1  # the last product measures the residual
    return float(min(cg.steps, 1 - np.log10(cg.tolerance) * HESSIAN_STEPS_PER_DIGIT))

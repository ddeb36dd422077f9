"""What fitting and asking a curvature of a network will take, from a pilot of few examples and the sizes of its steps.

A step is a number of passes over examples, whose time a pilot measures, or a number of matrix products, whose rate is
measured. The forms are chosen by the same limits as in the fit itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, final

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
    GaussNewton,
    Hessian,
    Identity,
    LiSSA,
    Nystrom,
)
from upweight.core.examples import Examples
from upweight.core.forecast import Forecast
from upweight.curvature.ekfac import second_moments
from upweight.curvature.kfac import FactoredLayer, factor_sums
from upweight.curvature.operators import GaussNewtonOperator, HessianOperator, Operator
from upweight.curvature.solvers.roots import Roots
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.captured_rows import MAX_STREAMED_NUMBERS
from upweight.gradients.inspection import capture, inspect
from upweight.gradients.outputs import NoOutputsError

PILOT_SHARE = 0.01  # of the examples
MAX_PILOT_EXAMPLES = 512
COPIES, BYTES = 4, 4  # of captured numbers
PAIRED_EXAMPLES = 128  # copies of the pilot's gradients in a product that is timed
CG_STEPS_PER_DIGIT = 2.5  # of the residual, in a preconditioned solve
PRODUCT_WIDTH = 512  # of the matrices whose product is timed
TIMED_SECONDS, MAX_CALLS = 0.02, 20  # of the repetitions of one step


def forecast_fit(pilot: Pilot, recipe: CurvatureRecipe | None) -> Forecast:
    """Fitting this curvature. Raises NoOutputsError if it is impossible for the loss."""
    fit = _fit(pilot, recipe)
    return Forecast(fit.parts, fit.bytes + pilot.working_bytes if fit.parts else 0.0)


def _fit(pilot: Pilot, recipe: CurvatureRecipe | None) -> Forecast:
    n, size = len(pilot.summed.train), pilot.network.size
    match recipe:
        case KFAC() | EKFAC():
            return _factored(pilot, isinstance(recipe, EKFAC))
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
    """Solving for so many queries, and their products with all training gradients."""
    n, size = len(pilot.summed.train), pilot.network.size
    solve, pair, memory = 0.0, pilot.pair, 8.0 * queries * n
    kind = pilot.form(recipe)
    if kind == "CG":
        solve = _steps(recipe, n) * n * queries * pilot.product
        pair, memory = pilot.vector_pair, memory + 5 * 4.0 * queries * size
    elif kind == "dual":
        rows = pilot.roots * n
        solve = rows * (queries + n) * pilot.pair + 2 * rows**2 * queries / pilot.flops
    elif kind == "direct":
        solve, pair = 2 * size**2 * queries / pilot.flops, pilot.vector_pair
    elif kind == "Fisher":
        solve, pair = n * queries * pilot.pair + 2 * n**2 * queries / pilot.flops, 2 * n / pilot.flops
    elif kind == "DataInf":
        solve = 2 * n * queries * pilot.pair
    elif kind != "Identity":
        pair, memory = pilot.vector_pair, memory + 4.0 * queries * size
    passes = pilot.held_passes(queries) * n * pilot.capture
    steps = {"solving for queries": solve, "training gradients": passes, "scores": n * queries * pair}
    return Forecast(steps, memory + pilot.working_bytes)


@final
class Pilot:
    """Seconds of single steps, measured on at most 1 % of the examples when they are asked for."""

    def __init__(self, summed: SummedObjective, clock: Callable[[], float] = time.perf_counter) -> None:
        self.summed, self.network, self.clock = summed, summed.network, clock
        n = len(summed.train)
        self.count = max(2, min(n, MAX_PILOT_EXAMPLES, int(PILOT_SHARE * n)))
        self.examples = summed.train.take(np.arange(min(n, self.count)))
        self.inspection = inspect(self.network, "loss", self.examples)

    def timed(self, work: Callable[[], Any]) -> float:
        """Seconds of a call, the median of a few after the first one, which may load and compile."""
        seconds = list[float]()
        while len(seconds) < 2 or (len(seconds) < MAX_CALLS and sum(seconds) < TIMED_SECONDS):
            start = self.clock()
            work()
            if self.network.device.type == "cuda":
                torch.cuda.synchronize(self.network.device)
            seconds.append(self.clock() - start)
        return float(np.median(seconds[1:]))

    def per_example(self, work: Callable[[Examples], Any], batch: int) -> float:
        """Seconds of an example in batches of this size, from two small batches: an overhead, and a part that grows."""
        count = min(len(self.examples), batch)
        large = self.timed(lambda: work(self.examples.take(np.arange(count))))
        if count < 4:
            return large / count
        small = self.timed(lambda: work(self.examples.take(np.arange(count // 4))))
        growth = max((large - small) / (count - count // 4), 0.25 * large / count)
        return growth + max(large - growth * count, 0.0) / max(batch, count)

    @cached_property
    def capture(self) -> float:
        """Of a forward and backward pass in which the gradient of an example is captured."""
        return self.per_example(
            lambda part: capture(self.network, "loss", part, self.inspection), self.inspection.batch_size
        )

    @cached_property
    def captured(self) -> CapturedBatch:
        """Captured gradients of some examples."""
        count = min(len(self.examples), self.inspection.batch_size)
        return capture(self.network, "loss", self.examples.take(np.arange(count)), self.inspection)

    @cached_property
    def batch(self) -> CapturedBatch:
        """The same, ready for products."""
        return self.captured.prepare()

    @cached_property
    def pair(self) -> float:
        """Of the inner product of two captured gradients."""
        where: Any = torch.arange(PAIRED_EXAMPLES) % self.batch.count
        terms = {name: tuple(term.take(where) for term in uses) for name, uses in self.batch.terms.items()}
        many = replace(self.batch, count=PAIRED_EXAMPLES, terms=terms)
        return self.timed(lambda: many.dot(many)) / PAIRED_EXAMPLES**2

    @property
    def vector_pair(self) -> float:
        """Of the inner product of a captured gradient with a vector of all parameters."""
        return 2 * self.network.size / self.flops

    @cached_property
    def multiplications(self) -> float:
        """Of weights with inputs in the forward pass of an example, at least one for each parameter."""
        layers = self.captured.layers()
        inside = sum(factors.s.shape[1] * factors.s.shape[2] * factors.a.shape[2] for factors in layers)
        return float(max(inside, self.network.size))

    @cached_property
    def flops(self) -> float:
        """Of matrix products, a second."""
        matrix = torch.ones(PRODUCT_WIDTH, PRODUCT_WIDTH, dtype=self.network.precision, device=self.network.device)
        return 2 * PRODUCT_WIDTH**3 / max(self.timed(lambda: matrix @ matrix), 1e-9)

    @cached_property
    def operator(self) -> Operator:
        """The Gauss–Newton matrix of the pilot's examples; the Hessian if that is impossible."""
        part = replace(self.summed, train=self.examples, weights=self.summed.weights[: len(self.examples)])
        try:
            return GaussNewtonOperator(part)
        except NoOutputsError:
            return HessianOperator(part)

    @property
    def product(self) -> float:
        """Of the product of a vector with the curvature of an example: two passes forward and two backward."""
        return max(8 * self.multiplications / self.flops, 2 * self.capture)

    @cached_property
    def roots(self) -> float:
        """Rows of the dual form for one example: a trained net is sure of most examples, and they have few."""
        if not isinstance(self.operator, GaussNewtonOperator):
            return float("inf")
        return len(Roots(self.operator, self.summed.limits.dual_trace)) / len(self.examples)

    @property
    def working_bytes(self) -> float:
        """Of the gradients that are captured and streamed at a time, with a few copies of them."""
        floats = self.inspection.floats
        batch = min(self.inspection.batch_size, len(self.summed.train)) * floats
        return float(COPIES * BYTES * (batch + min(len(self.summed.train) * floats, MAX_STREAMED_NUMBERS)))

    def held_passes(self, rows: int) -> float:
        """Passes over the streamed side of a product whose held side has so many rows."""
        return float(max(1, -(-int(rows * self.inspection.floats) // self.summed.limits.held_numbers)))

    def form(self, recipe: CurvatureRecipe | None) -> str:
        """How the inverse is taken: "CG", "dual", "direct", or the name of a curvature that needs none of them."""
        if not isinstance(recipe, GaussNewton | Hessian | None):
            return "Fisher" if isinstance(recipe, EmpiricalFisher) else type(recipe).__name__
        limits, n = self.summed.limits, len(self.summed.train)
        solver = None if recipe is None else recipe.solver
        is_iterative = isinstance(solver, CG | LiSSA | Arnoldi | Nystrom)
        if not is_iterative and self.network.size <= limits.dense_parameters:
            return "direct"
        if is_iterative or (solver is None and (isinstance(recipe, Hessian) or 2 * n > limits.dual_rows)):
            return "CG"
        if not isinstance(recipe, Hessian) and self.roots * n <= limits.dual_rows:
            return "dual"
        return "CG" if solver is None else "direct"


def _factored(pilot: Pilot, refined: bool) -> Forecast:
    """KFAC or EK-FAC: passes for the factors, eigenvectors, and passes for second moments."""
    summed, n = pilot.summed, len(pilot.summed.train)
    layers, _ = factor_sums(summed, (pilot.examples, summed.weights[: len(pilot.examples)]))
    widths = [len(factor) for layer in layers.values() for factor in (layer.inputs, layer.slopes) if factor.ndim == 2]
    batch = pilot.inspection.batch_size
    steps = {"factors": n * pilot.per_example(lambda part: factor_sums(summed, _weighted(pilot, part)), batch)}
    steps["eigenvectors"] = _eigenvector_seconds(pilot, widths)
    if refined:
        for layer in layers.values():
            _pretend_eigenvectors(layer)
        moments = pilot.per_example(lambda part: second_moments(summed, layers, {}, _weighted(pilot, part)), batch)
        steps["second moments"] = n * moments
    return Forecast(steps, 4.0 * (4 * sum(width**2 for width in widths) + 2 * pilot.network.size))


def _weighted(pilot: Pilot, part: Examples) -> tuple[Examples, Any]:
    return part, pilot.summed.weights[: len(part)]


def _pretend_eigenvectors(layer: FactoredLayer) -> None:
    """Matrices of the shape of eigenvectors: what is done with them takes as long."""
    layer.right = layer.inputs.clone() if layer.inputs.ndim == 2 else None
    layer.left = layer.slopes.clone() if layer.slopes.ndim == 2 else None
    layer.values = layer.inputs.new_zeros(len(layer.slopes), len(layer.inputs))


def _eigenvector_seconds(pilot: Pilot, widths: list[int]) -> float:
    """Of the decompositions of symmetric matrices in float64, from a small one."""
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
        columns = outputs if is_gauss_newton else size
        passes = n * columns * pilot.product
        squares = 4 * n * outputs * size**2 / pilot.flops if is_gauss_newton else 0.0
        steps = {"matrix": passes + squares, "factorisation": 2 * size**3 / 3 / pilot.flops}
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
            return _factored(pilot, refined=True)
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

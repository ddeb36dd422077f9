"""A pilot: seconds of the steps of a curvature of a network, measured on few examples."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, final

import numpy as np
import torch

from upweight.core.curvature import Curvature
from upweight.core.curvature_recipes import (
    CG,
    Arnoldi,
    CurvatureRecipe,
    EmpiricalFisher,
    GaussNewton,
    Hessian,
    LiSSA,
    Nystrom,
)
from upweight.core.examples import Examples
from upweight.curvature.damping import choose_damping
from upweight.curvature.inverted import InvertedCurvature
from upweight.curvature.linear_head import is_linear_head
from upweight.curvature.operators import GaussNewtonOperator, HessianOperator, Operator
from upweight.curvature.solvers.algebra import standard_normal, take_columns, to_blocks
from upweight.curvature.solvers.cg import ConjugateGradients
from upweight.curvature.solvers.roots import Roots
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.capture import capture
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.held_numbers import held_numbers, streamed_numbers
from upweight.gradients.inspection import inspect
from upweight.gradients.outputs import NoOutputsError

PILOT_SHARE = 0.01  # of the examples
MAX_PILOT_EXAMPLES = 512
FAST_SECONDS = 0.01  # of a capture, below which the pilot takes more examples
COPIES_OF_CAPTURED, BYTES_OF_A_NUMBER = 4, 4  # of captured numbers
MAX_PAIRED_EXAMPLES = 128  # copies of the pilot's gradients in a product that is timed
MAX_PAIRED_NUMBERS = 1 << 22  # captured numbers of these copies
PRODUCT_WIDTH = 512  # of the matrices whose product is timed
COLUMNS = 8  # vectors that are multiplied with the curvature in a product that is timed
SOLVED_COLUMNS = 2  # of conjugate gradients whose steps are counted
PASSES_OF_A_COLUMN = 3  # a product of a single vector takes, beside one of many, whose graph is shared
LEAST_SOLVED_EXAMPLES, MAX_SOLVED_EXAMPLES = 16, 512  # of these solves
WRITTEN_NUMBERS = 1 << 20
TIMED_SECONDS, MAX_CALLS = 0.02, 20  # of the repetitions of one step


@final
class Pilot:
    """Seconds of single steps, measured on at most 1 % of the examples when they are asked for."""

    def __init__(
        self,
        summed: SummedObjective,
        clock: Callable[[], float] = time.perf_counter,
        fitted: Curvature | None = None,
    ) -> None:
        self.summed, self.network, self.clock = summed, summed.network, clock
        # Of the fitted curvature; without one, a damping is chosen and rows are counted for the pilot's examples.
        self.shift: float | None = None
        self._rows: int | None = None
        if isinstance(fitted, InvertedCurvature):
            self.shift, self._rows = fitted.shift, fitted.rows
        n = len(summed.train)
        self.count = max(2, min(n, MAX_PILOT_EXAMPLES, int(PILOT_SHARE * n)))
        self.inspection = inspect(self.network, "loss", summed.train.take(np.arange(min(n, self.count))))
        self._products: dict[type[Operator], float] = {}
        self._take_more()
        self.examples = summed.train.take(np.arange(min(n, self.count)))

    def _take_more(self) -> None:
        """More examples, as long as capturing them is fast: of few, most of the time is that of every batch."""
        most = min(len(self.summed.train), MAX_PILOT_EXAMPLES)
        while self.count < most:
            part = self.summed.train.take(np.arange(self.count))
            start = self.clock()
            capture(self.network, "loss", part, self.inspection)
            if self.clock() - start > FAST_SECONDS:
                return
            self.count = min(4 * self.count, most)

    def timed(self, work: Callable[[], Any], is_warm: bool = False) -> float:
        """Seconds of a call: the least of a few, which other processes disturb least.

        The first one, which may load and compile, counts if it `is_warm`.
        """
        seconds, first = list[float](), 0 if is_warm else 1
        while len(seconds) <= first or (len(seconds) < MAX_CALLS and sum(seconds[first:]) < TIMED_SECONDS):
            start = self.clock()
            work()
            if self.network.device.type == "cuda":
                torch.cuda.synchronize(self.network.device)
            seconds.append(self.clock() - start)
        return min(seconds[first:])

    def per_example(self, work: Callable[[Examples], Any], batch: int, is_warm: bool = False) -> float:
        """Seconds of an example in batches of this size, from two small batches: an overhead, and a part that grows."""
        count = min(len(self.examples), batch)
        large = self.timed(lambda: work(self.examples.take(np.arange(count))), is_warm)
        if count < 4:
            return large / count
        small = self.timed(lambda: work(self.examples.take(np.arange(count // 4))), is_warm=True)
        growth = max((large - small) / (count - count // 4), 0.25 * large / count)
        return growth + max(large - growth * count, 0.0) / max(batch, count)

    @cached_property
    def capture(self) -> float:
        """Seconds of a forward and backward pass in which the gradient of an example is captured."""
        return self.per_example(
            lambda part: capture(self.network, "loss", part, self.inspection), self.inspection.batch_size
        )

    @cached_property
    def ready(self) -> float:
        """The same, with the gradient prepared for many products."""
        return self.per_example(
            lambda part: capture(self.network, "loss", part, self.inspection).prepare(), self.inspection.batch_size
        )

    @cached_property
    def squares(self) -> float:
        """Seconds of a captured gradient and its square, parameter by parameter."""

        def square(part: Examples) -> None:
            batch = capture(self.network, "loss", part, self.inspection)
            for name in self.network.names:
                batch.sum_of_squares(name)

        return self.per_example(square, self.inspection.batch_size)

    @cached_property
    def captured(self) -> CapturedBatch:
        """Captured gradients of some examples."""
        count = min(len(self.examples), self.inspection.batch_size)
        return capture(self.network, "loss", self.examples.take(np.arange(count)), self.inspection)

    @cached_property
    def batch(self) -> CapturedBatch:
        """`captured`, prepared for products."""
        return self.captured.prepare()

    @cached_property
    def pair(self) -> float:
        """Seconds of the inner product of two captured gradients."""
        count = max(2, min(MAX_PAIRED_EXAMPLES, MAX_PAIRED_NUMBERS // self.inspection.floats))
        where: Any = torch.arange(count) % self.batch.count
        terms = {name: tuple(term.take(where) for term in uses) for name, uses in self.batch.terms.items()}
        many = replace(self.batch, count=count, terms=terms)
        return self.timed(lambda: many.dot(many)) / count**2

    @property
    def vector_pair(self) -> float:
        """Seconds of the inner product of a captured gradient with a vector of all parameters."""
        return 2 * self.network.size / self.flops

    @cached_property
    def multiplications(self) -> float:
        """Multiplications in the forward pass of an example, at least one for each parameter."""
        layers = self.captured.layers()
        inside = sum(factors.s.shape[1] * factors.s.shape[2] * factors.a.shape[2] for factors in layers)
        return float(max(inside, self.network.size))

    @cached_property
    def flops(self) -> float:
        """Floating-point operations per second in matrix products."""
        return self._flops(self.network.precision, self.network.device)

    @cached_property
    def wide_flops(self) -> float:
        """The same in float64 on the processor, where matrices of examples × examples are factored."""
        return self._flops(torch.float64, torch.device("cpu"))

    def _flops(self, precision: torch.dtype, device: torch.device) -> float:
        matrix = torch.ones(PRODUCT_WIDTH, PRODUCT_WIDTH, dtype=precision, device=device)
        return 2 * PRODUCT_WIDTH**3 / max(self.timed(lambda: matrix @ matrix), 1e-9)

    @cached_property
    def written(self) -> float:
        """Seconds in which a float64 number is written to new memory."""
        numbers = np.ones(WRITTEN_NUMBERS)
        return self.timed(numbers.copy) / WRITTEN_NUMBERS

    @cached_property
    def operator(self) -> Operator:
        """The Gauss–Newton matrix of the pilot's examples; the Hessian if that is impossible."""
        try:
            return GaussNewtonOperator(self._part())
        except NoOutputsError:
            return self.hessian

    @cached_property
    def hessian(self) -> HessianOperator:
        """The Hessian of the pilot's examples."""
        return HessianOperator(self._part())

    def _part(self, count: int | None = None) -> SummedObjective:
        count = len(self.examples) if count is None else count
        train = self.examples if count == len(self.examples) else self.examples.take(np.arange(count))
        return replace(self.summed, train=train, weights=self.summed.weights[:count])

    def product(self, recipe: CurvatureRecipe | None) -> float:
        """Seconds of the product of a vector with the curvature of an example, in batches and among several vectors."""
        operator = self.hessian if isinstance(recipe, Hessian) else self.operator
        if type(operator) not in self._products:
            vectors = to_blocks(self.network, standard_normal(self.network, COLUMNS, torch.Generator().manual_seed(0)))

            def multiply(part: Examples) -> None:
                operator.subset(np.arange(len(part))).product(vectors)

            seconds = self.per_example(multiply, operator.batch_size)
            self._products[type(operator)] = seconds / COLUMNS
        return self._products[type(operator)]

    def steps(self, cg: CG, queries: int) -> float | None:
        """Steps of conjugate gradients with the Hessian of few examples; None if the pilot has too few for that.

        The right-hand sides are gradients of examples, of which as few are taken as cost a hundredth of the queries.
        """
        affordable = PILOT_SHARE * len(self.summed.train) * queries / (SOLVED_COLUMNS * PASSES_OF_A_COLUMN)
        count = min(len(self.examples), MAX_SOLVED_EXAMPLES, int(affordable))
        if count < LEAST_SOLVED_EXAMPLES:
            return None
        scale = len(self.summed.train) / count
        part = replace(self._part(count), ridge=self.summed.ridge / scale)
        part = choose_damping(part, Hessian()) if self.shift is None else replace(part, ridge=self.shift / scale)
        operator = HessianOperator(part, self.hessian.wide)
        gradients = {name: self.captured.materialise(name)[:SOLVED_COLUMNS] for name in self.network.names}
        solver = ConjugateGradients(operator, cg)
        columns = [take_columns(gradients, slice(i, i + 1)) for i in range(SOLVED_COLUMNS)]
        return float(np.mean([solver.solve(column).steps for column in columns]))

    @cached_property
    def roots(self) -> float:
        """Rows of the dual form for one example: a trained net is sure of most examples, and they have few.

        They are counted for many examples, at equal distances, as it takes the outputs alone: whether the dual form is
        taken depends on them.
        Infinite where that form is impossible, or was not taken by the fit.
        """
        if self._rows is not None:
            return self._rows / len(self.summed.train) or float("inf")
        if not isinstance(self.operator, GaussNewtonOperator):
            return float("inf")
        n = len(self.summed.train)
        chosen = np.linspace(0, n - 1, min(n, MAX_PILOT_EXAMPLES)).astype(np.intp)
        part = replace(self.summed, train=self.summed.train.take(chosen), weights=self.summed.weights[chosen])
        return len(Roots(GaussNewtonOperator(part), self.summed.limits.dual_trace)) / len(chosen)

    @property
    def batch_bytes(self) -> float:
        """Bytes of the gradients that are captured at a time, with a few copies of them."""
        count = min(self.inspection.batch_size, len(self.summed.train))
        return float(COPIES_OF_CAPTURED * BYTES_OF_A_NUMBER * count * self.inspection.floats)

    def paired_bytes(self, rows: int) -> float:
        """Bytes of the sides of products of captured gradients: this many rows are held while all others stream past.

        Batches are joined term by term, so that the largest term is there twice.
        """
        most = self.batch.floats * len(self.summed.train)
        held = min(rows * self.batch.floats, held_numbers(self.summed.limits.held_numbers))
        largest = max((term.floats for uses in self.batch.terms.values() for term in uses), default=0)
        joined = 1 + largest / max(self.batch.floats, 1)
        return BYTES_OF_A_NUMBER * joined * (held + min(most, streamed_numbers()))

    def held_passes(self, rows: int) -> float:
        """Passes over the streamed side of a product whose other side, held in memory, has this many rows."""
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
            fits = not is_iterative and not isinstance(recipe, Hessian) and self.network.size <= limits.head_parameters
            return "direct" if fits and is_linear_head(self.summed) else "CG"
        if not isinstance(recipe, Hessian) and self.roots * n <= limits.dual_rows:
            return "dual"
        return "CG" if solver is None else "direct"

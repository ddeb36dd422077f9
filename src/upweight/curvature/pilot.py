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
from upweight.curvature.solvers.roots import roots_of_an_example
from upweight.curvature.summed_objective import SummedObjective
from upweight.curvature.timed_steps import least_seconds, measured, rates_of, seconds_per_example
from upweight.gradients.capture import capture
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.held_numbers import held_numbers, streamed_numbers
from upweight.gradients.inspection import inspect
from upweight.gradients.outputs import NoOutputsError

PILOT_SHARE = 0.005  # of the examples: with warm-up and steps of a fixed size, a pilot is to take 1 % of the work
LEAST_EXAMPLES = 8  # of fewer, most of the time is an overhead, and no memory is new
SOLVED_SHARE = 0.01  # of products with the curvature, in which its iterations are counted
MAX_PILOT_EXAMPLES = 512
FAST_SECONDS = 0.01  # of a capture, below which the pilot takes more examples
COPIES_OF_CAPTURED = 4  # of the captured numbers of a batch
MAX_PAIRED_EXAMPLES = 128  # copies of the pilot's gradients in a product that is timed
MAX_PAIRED_NUMBERS = 1 << 22  # captured numbers of these copies
PRODUCT_WIDTH = 512  # of the matrices whose product is timed
COLUMNS = 8  # vectors that are multiplied with the curvature in a product that is timed
SOLVED_COLUMNS, PASSES_OF_A_COLUMN = 2, 3  # of counted conjugate gradients; a single one shares no graph
LEAST_SOLVED_EXAMPLES, MAX_SOLVED_EXAMPLES = 16, 512  # of these solves
BYTES_WRITTEN, WRITTEN_NUMBERS = 8, 1 << 22  # 32 MB are new pages in every copy, whatever an allocator keeps


@final
class Pilot:
    """Seconds of single steps, measured on few of the examples when they are asked for."""

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
        self._prepared: CapturedBatch | None = None  # the last batch that was prepared
        self.condition: float | None = None  # that a preconditioner leaves
        if isinstance(fitted, InvertedCurvature):
            self.shift, self._rows, self.condition = fitted.shift, fitted.rows, fitted.condition
        n = len(summed.train)
        self.rates, count = rates_of(self.network, summed.train), min(n, MAX_PILOT_EXAMPLES, int(PILOT_SHARE * n))
        self.inspection = inspect(self.network, "loss", summed.train)  # which the work needs as well, and which is kept
        self.least = max(LEAST_EXAMPLES, count)
        self.count = int(self.rates.get("count", 0)) or self._more(self.least)
        self.rates["count"] = self.count
        self.examples = summed.train.take(np.arange(min(n, self.count)))

    def _more(self, count: int) -> int:
        """More examples, as long as capturing them is fast: of few, most of the time is that of every batch."""
        most = min(len(self.summed.train), MAX_PILOT_EXAMPLES)
        while count < most:
            part = self.summed.train.take(np.arange(count))
            start = self.clock()
            capture(self.network, "loss", part, self.inspection)
            if self.clock() - start > FAST_SECONDS:
                break
            count = min(4 * count, most)
        return count

    def timed(self, work: Callable[[], Any], is_warm: bool = False) -> float:
        """`least_seconds`."""
        return least_seconds(work, self.clock, self.network.device, is_warm)

    def per_example(self, work: Callable[[Examples], Any], batch: int, is_warm: bool = False) -> float:
        """Seconds of an example in batches of this size, from two small batches."""
        count = min(len(self.examples), batch)
        return seconds_per_example(
            lambda some: work(self.examples.take(np.arange(some))), self.timed, (self.least, count, batch), is_warm
        )

    @measured
    def capture(self) -> float:
        """Seconds of a forward and backward pass in which the gradient of an example is captured."""
        return self.per_example(
            lambda part: capture(self.network, "loss", part, self.inspection), self.inspection.batch_size
        )

    @measured
    def ready(self) -> float:
        """The same, with the gradient prepared for many products."""

        def prepare(part: Examples) -> None:
            self._prepared = capture(self.network, "loss", part, self.inspection).prepare()

        return self.per_example(prepare, self.inspection.batch_size)

    @measured
    def squares(self) -> float:
        """Seconds of a captured gradient and its square, parameter by parameter."""

        def square(part: Examples) -> None:
            batch = capture(self.network, "loss", part, self.inspection)
            for name in self.network.names:
                batch.sum_of_squares(name)

        return self.per_example(square, self.inspection.batch_size)

    @measured
    def floats(self) -> float:
        """Numbers of a captured gradient that is prepared for products."""
        return self.batch.floats

    @cached_property
    def captured(self) -> CapturedBatch:
        """Captured gradients of some examples."""
        count = min(len(self.examples), self.inspection.batch_size)
        return capture(self.network, "loss", self.examples.take(np.arange(count)), self.inspection)

    @cached_property
    def batch(self) -> CapturedBatch:
        """`captured`, prepared for products; that of which the time was measured, if it was."""
        _ = self.ready
        return self.captured.prepare() if self._prepared is None else self._prepared

    @measured
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
        return 2 * self.network.size / float(self.flops)

    @measured
    def multiplications(self) -> float:
        """Multiplications in the forward pass of an example, at least one for each parameter."""
        layers = self.captured.layers()
        inside = sum(factors.s.shape[1] * factors.s.shape[2] * factors.a.shape[2] for factors in layers)
        return float(max(inside, self.network.size))

    @measured
    def flops(self) -> float:
        """Floating-point operations per second in matrix products."""
        return self._flops(self.network.precision, self.network.device)

    @measured
    def wide_flops(self) -> float:
        """The same in float64 on the processor, where matrices of examples × examples are factored."""
        return self._flops(torch.float64, torch.device("cpu"))

    def _flops(self, dtype: torch.dtype, device: torch.device) -> float:
        matrix = torch.ones(PRODUCT_WIDTH, PRODUCT_WIDTH, dtype=dtype, device=device)
        return 2 * PRODUCT_WIDTH**3 / max(self.timed(lambda: matrix @ matrix), 1e-9)

    @measured
    def written(self) -> float:
        """Seconds in which a float64 number is written to new memory."""
        numbers = np.ones(WRITTEN_NUMBERS)
        return self.timed(numbers.copy, is_warm=True) / WRITTEN_NUMBERS

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
        name = f"products of {type(operator).__name__}"
        if name not in self.rates:
            vectors = to_blocks(self.network, standard_normal(self.network, COLUMNS, torch.Generator().manual_seed(0)))

            def multiply(part: Examples) -> None:
                operator.subset(np.arange(len(part))).product(vectors)

            seconds = self.per_example(multiply, operator.batch_size)
            self.rates[name] = seconds / COLUMNS
        return self.rates[name]

    def steps(self, cg: CG, queries: int) -> float | None:
        """Steps of conjugate gradients with the Hessian of few examples; None if the pilot has too few for that.

        The right-hand sides are gradients of examples, of which as few are taken as cost a hundredth of the queries.
        """
        affordable = SOLVED_SHARE * len(self.summed.train) * queries / (SOLVED_COLUMNS * PASSES_OF_A_COLUMN)
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
        taken depends on them. Infinite where that form is impossible, or was not taken by the fit.
        """
        if self._rows is not None:
            return self._rows / len(self.summed.train) or float("inf")
        if not isinstance(self.operator, GaussNewtonOperator):
            return float("inf")
        return roots_of_an_example(self.summed)

    @property
    def number_bytes(self) -> int:
        """Bytes of a number of the net's precision."""
        return self.network.precision.itemsize

    @property
    def batch_bytes(self) -> float:
        """Bytes of the gradients that are captured at a time, with a few copies of them."""
        return self._captured_bytes(self.inspection.batch_size)

    @property
    def graph_bytes(self) -> float:
        """Bytes of the graphs of a batch of products with the curvature: of more examples, with as many copies."""
        return self._captured_bytes(self.operator.batch_size)

    def _captured_bytes(self, count: int) -> float:
        examples = min(count, len(self.summed.train))
        return float(COPIES_OF_CAPTURED * self.number_bytes * examples * self.inspection.floats)

    def paired_bytes(self, rows: int) -> float:
        """Bytes of the sides of products of captured gradients: this many rows are held while all others stream by."""
        return self.held_bytes(rows) + self.held_bytes(len(self.summed.train), streamed_numbers())

    def held_bytes(self, rows: int, most: int | None = None) -> float:
        """Bytes of this many captured gradients, up to `most` numbers at a time; None for those that products hold."""
        most = held_numbers(self.summed.limits.held_numbers) if most is None else most
        return float(self.number_bytes * min(rows * self.floats, most))

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

"""What a curvature costs before it is computed: flops counted from the sizes of the layers, never from the clock.

Only products of matrices are counted, which take nearly all of the time of layers with weights. A forward-backward pass
of one example takes 6 T d_i d_o for a layer with T positions: a third of it forward, a third for the gradients of its
inputs, and a third for those of its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from upweight.core.curvature_recipes import EKFAC, KFAC, CurvatureRecipe, Diagonal, EmpiricalFisher, GaussNewton
from upweight.curvature.eigenvalue_sample import eigenvalue_count
from upweight.curvature.fisher import MAX_EXAMPLES
from upweight.curvature.kfac import ROWS_PER_WIDTH
from upweight.curvature.label_expectation import Expectation, expectation_of, output_count
from upweight.curvature.summed_objective import SummedObjective
from upweight.curvature.unfactored_parameters import MAX_ROTATED_AXIS
from upweight.gradients.capture import capture
from upweight.gradients.inspection import inspect
from upweight.gradients.outputs import NoOutputsError

EIGENDECOMPOSITION = 20  # flops over the cube of the width, in float64


@dataclass(frozen=True)
class LayerSize:
    """Positions, inputs and outputs of a layer whose gradients are outer products."""

    positions: int
    inputs: int
    outputs: int

    @property
    def weights(self) -> int:
        """d_i d_o."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Prices:
    """The flops of every curvature of one objective.

    Attributes:
        layers: sizes of the layers.
        examples: of weight above 0.
        parameters: numbers in all.
        outputs: of one example.
        expectation: how label directions are taken.
        refined_by: examples from which EK-FAC's eigenvalues are estimated by default.
    """

    layers: tuple[LayerSize, ...]
    examples: int
    parameters: int
    outputs: int
    expectation: Expectation
    refined_by: int

    @classmethod
    def of(cls, summed: SummedObjective) -> Prices:
        """Count them from one captured example. Raises NoOutputsError if the loss is not a function of outputs."""
        network, first = summed.network, summed.train.take(np.array([0]))
        captured = capture(network, "loss", first, inspect(network, "loss", summed.train))
        layers = []
        for factors in captured.layers():
            positions = sum(use.length for use in factors.uses)
            layers.append(LayerSize(positions, factors.width + (factors.bias is not None), factors.s.shape[2]))
        outputs, expectation = output_count(summed), expectation_of(summed)
        examples = len(summed.train)
        refined_by = min(examples, eigenvalue_count(summed) or examples)
        return cls(tuple(layers), examples, network.size, outputs, expectation, refined_by)

    @property
    def one_pass(self) -> float:
        """A forward-backward pass over the training set; at least that of as many weights as there are parameters."""
        products = sum(layer.positions * layer.weights for layer in self.layers)
        return 6.0 * self.examples * max(products, self.parameters)

    @property
    def directions(self) -> int:
        """Label directions that are backpropagated for each example."""
        return self.expectation.draws or self.outputs

    def flops(self, recipe: CurvatureRecipe) -> float:
        """The flops of the fit."""
        match recipe:
            case GaussNewton():
                rows = self.examples * self.outputs
                return self._backward(1 + self.outputs) + 2.0 * rows * self.parameters**2 + self.parameters**3 / 3
            case KFAC():
                return self._backward(1 + self.directions) + self._factors()
            case EKFAC():
                refined = min(1.0, (recipe.eigenvalue_examples or self.refined_by) / self.examples)
                choice = self.one_pass / 3 if refined < 1 else 0.0  # a forward pass
                moments = refined * (self._backward(1 + self.directions) + self._moments())
                return self._backward(1 + self.directions) + self._factors() + choice + moments
            case EmpiricalFisher():
                return 2 * self.one_pass + self._gram() + self.examples**3 / 3
            case Diagonal():
                return 2 * self.one_pass
        raise TypeError(f"no count for {recipe}")

    def answer(self, queries: int) -> float:
        """The flops of gradients of the training set and of so many queries, and of their products."""
        return (1 + queries / self.examples) * self.one_pass + 2.0 * self.examples * queries * self.parameters

    def is_possible(self, recipe: CurvatureRecipe) -> bool:
        """Whether the curvature's own limits allow it, whatever it costs."""
        return not isinstance(recipe, EmpiricalFisher) or self.examples <= MAX_EXAMPLES

    def _backward(self, passes: int) -> float:
        return passes * self.one_pass / 3

    def _factors(self) -> float:
        total = 0.0
        for layer in self.layers:
            rows = self.examples * layer.positions
            if self.expectation.grouped:
                rows = min(rows, ROWS_PER_WIDTH * layer.inputs)
            sides = (2.0 * rows, layer.inputs), (2.0 * self.examples * layer.positions * self.directions, layer.outputs)
            for count, width in sides:
                rotated = width <= MAX_ROTATED_AXIS
                total += count * width**2 + EIGENDECOMPOSITION * width**3 if rotated else count * width
        return total

    def _moments(self) -> float:
        total = 0.0
        for layer in self.layers:
            t, k, d_i, d_o = layer.positions, self.directions, layer.inputs, layer.outputs
            by_factors = t * min(d_i, MAX_ROTATED_AXIS) * d_i + k * t * min(d_o, MAX_ROTATED_AXIS) * d_o
            if t == 1:
                total += 2.0 * self.examples * (by_factors + layer.weights)
            else:
                rotation = min(by_factors, k * layer.weights * (d_i + d_o))
                total += 2.0 * self.examples * (rotation + k * t * layer.weights)
        return total

    def _gram(self) -> float:
        pair = sum(
            2.0 * min(layer.positions**2 * (layer.inputs + layer.outputs), layer.weights) for layer in self.layers
        )
        return self.examples**2 / 2 * pair


def counted_flops(
    summed: SummedObjective, recipe: CurvatureRecipe | None, answered: int, has_fit: bool = True
) -> float:
    """The flops of fitting this curvature and answering for so many queries; infinite if nobody counts them.

    Those of solvers are not counted, nor those of parameters that hooks miss.
    """
    if not isinstance(recipe, EKFAC | KFAC | EmpiricalFisher | Diagonal):
        return inf
    if inspect(summed.network, "loss", summed.train).fallback:
        return inf
    try:
        prices = Prices.of(summed)
    except NoOutputsError:
        return inf
    return (prices.flops(recipe) if has_fit else 0.0) + prices.answer(answered)

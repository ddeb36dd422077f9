"""Derivatives of query measurements in the inputs of training examples, through retraining."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor
from upweight.core.blocks import blocks
from upweight.core.examples import Examples
from upweight.core.inverse_hvp import InverseHVP
from upweight.core.model import Perturbable
from upweight.methods.influence import Influence

Array = NDArray[np.float64]
MAX_GRADIENT_NUMBERS = 8_000_000  # gradients (queries × examples × numbers) held at a time: 64 MB


@dataclass(frozen=True, eq=False)
class InputGradients:
    """Gradients of a fitted influence in the inputs of the training set."""

    fitted: InverseHVP
    model: Perturbable
    train: Examples

    @classmethod
    def of(cls, model: Any, train: Examples, recipe: Attributor | None = None) -> InputGradients:
        """Fit the recipe (None: `Influence(polish=0)`) at the optimum of the model's training.

        Raises TypeError if the method cannot solve with its curvature.
        """
        recipe = Influence(polish=0) if recipe is None else recipe
        model.gradient_norm(train)  # refuses data that the model was not fitted on, which the next line would not
        fitted = recipe.fit(model.hypothetical(new_inputs=True), train)
        if not isinstance(fitted, InverseHVP):
            raise TypeError(
                "expected a recipe that solves with its curvature, such as uw.Influence(…), got "
                f"{type(recipe).__name__}; omit the recipe to use the one that suits the model"
            )
        return cls(fitted, cast(Perturbable, fitted.model), train)

    def query_ihvps(self, queries: Examples) -> Array:
        """(H + λ)⁻¹ ∇m of every query: (m, parameters)."""
        return self.fitted.query_ihvps(queries)

    def gradients(self, examples: Examples, vectors: Array) -> Array:
        """−vᵀ ∂rowᵢ/∂xᵢ: (m, n, …)."""
        return -self.model.input_gradients(examples, vectors)

    def train_blocks(self, vectors: Array) -> Iterator[Array]:
        """Gradients of all training examples, one block of examples at a time: (m, block, numbers)."""
        width = math.prod(self.model.movable(self.train.take([0])).values.shape[1:])
        size = max(1, MAX_GRADIENT_NUMBERS // max(1, len(vectors) * width))
        for block in blocks(len(self.train), size):
            gradients = self.gradients(self.train.take(np.arange(block.start, block.stop)), vectors)
            yield gradients.reshape(*gradients.shape[:2], -1)

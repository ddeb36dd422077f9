"""Fitted methods that can solve with their curvature: the inverse-Hessian-vector product of a query's gradient."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Fitted, ModelT, RecipeT
from upweight.core.examples import Examples


class InverseHVP(Fitted[RecipeT, ModelT]):
    """A fitted method whose scores are −vᵀ∇ℓᵢ, with one vector v = (H + λ)⁻¹ ∇m per query.

    Applications use v to differentiate a score, for instance in the inputs of the training example.
    """

    @abstractmethod
    def query_ihvps(self, queries: Examples) -> NDArray[np.float64]:
        """(H + λ)⁻¹ ∇m of every query, shape (m, parameters)."""

"""GradDot: inner products of gradients at the trained parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from upweight.core.attributor import Attributor, Promises
from upweight.core.examples import Examples
from upweight.core.model import Differentiable
from upweight.methods.gradient_products import FittedProducts, Layers, as_it_is


@dataclass(frozen=True, kw_only=True)
class GradDot(Attributor):
    """−∇m_q·∇ℓ_i of the model as handed in: TracIn with the final checkpoint alone and a step of one. RANK.

    Args:
        layers: the only layers whose gradients count: their names, or "last" for the last one; None for all.
    """

    summary = "Inner products of gradients at the trained parameters"
    cost = "one pass over queries and training set, and their inner products"
    needs = (Differentiable,)

    layers: Layers = None

    @property
    def promises(self) -> Promises:
        """A little of the order, as far as the curvature is alike in all directions."""
        return Promises(correlation=0.1)

    def fit(self, model: Any, train: Examples) -> FittedProducts:
        """Look at what there is; gradients are taken when queries come."""
        return FittedProducts(self, model, train, as_it_is(model), self.layers)

"""GradCos: cosines of gradients at the trained parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from upweight.core.attributor import Promises
from upweight.core.examples import Examples
from upweight.core.model import Differentiable
from upweight.methods.gradient_products import Cosines, FittedProducts, as_it_is


@dataclass(frozen=True, kw_only=True)
class GradCos(Cosines):
    """−cos(∇m_q, ∇ℓ_i) of the model as handed in: GAS with the final checkpoint alone. RANK.

    Args:
        by: divide by the norm over "all" parameters, or in each "layer" by its own, so that no layer drowns the others.
        layers: the only layers whose gradients count: their names, or "last" for the last one; None for all.
    """

    summary = "Cosines of gradients at the trained parameters"
    cost = "that of GradDot"
    needs = (Differentiable,)

    @property
    def promises(self) -> Promises:
        """Less than GradDot: what an example's size does is divided away."""
        return Promises(correlation=0.05)

    def fit(self, model: Any, train: Examples) -> FittedProducts:
        """Look at what there is; gradients are taken when queries come."""
        return FittedProducts(self, model, train, as_it_is(model), self.layers, self.by)

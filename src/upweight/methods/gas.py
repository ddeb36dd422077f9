"""GAS: cosines of gradients at the checkpoints of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from upweight.core.attributor import Promises
from upweight.core.checkpoints import Checkpointed
from upweight.core.examples import Examples
from upweight.methods.gradient_products import Cosines, FittedProducts, same_checkpoints


@dataclass(frozen=True, kw_only=True)
class GAS(Cosines):
    """Hammoudeh & Lowd (2022), GAS, first named CosIn: −Σ_c τ_c cos(∇m_q, ∇ℓ_i) over saved checkpoints. RANK.

    Renormalised, examples with large losses no longer rank first for every query; made to find poisoned examples.

    Args:
        by: divide by the norm over "all" parameters, or in each "layer" by its own, so that no layer drowns the others.
        layers: the only layers whose gradients count: their names, or "last" for the last one; None for all.
    """

    summary = "Cosines of gradients at the checkpoints of a training"
    paper = "Hammoudeh & Lowd (2022)"
    cost = "that of TracIn"
    needs = (Checkpointed,)
    variants: ClassVar = {"by layer": {"by": "layer"}}

    @property
    def promises(self) -> Promises:
        """Less than TracIn: what an example's size does is divided away."""
        return Promises(correlation=0.05)

    def fit(self, model: Any, train: Examples) -> FittedProducts:
        """Look at what there is; gradients are taken when queries come."""
        return FittedProducts(self, model, train, model.checkpoints(), self.layers, self.by)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedProducts:
        """The same, if the checkpoints are."""
        fitted = self.fit(model, train)
        same_checkpoints(facts, fitted.moments)
        return fitted

"""GradCos: cosines of gradients at the trained parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Promises
from upweight.core.examples import Examples
from upweight.core.model import Differentiable, require
from upweight.methods.products import FittedProducts, Layers, as_it_is


@dataclass(frozen=True, kw_only=True)
class GradCos(Attributor):
    """−cos(∇m_q, ∇ℓ_i) of the model as handed in: GAS with the final checkpoint alone. RANK.

    Args:
        by: divide by the norm over "all" parameters, or in each "layer" by its own, so that no layer drowns the others.
        layers: the only layers whose gradients count: their names, or "last" for the last one; None for all.

    Cost: that of GradDot.
    """

    by: Literal["all", "layer"] = "all"
    layers: Layers = None

    def __post_init__(self) -> None:
        if self.by not in ("all", "layer"):
            raise ValueError(f'expected by="all" or "layer", got {self.by!r}')

    @property
    def promises(self) -> Promises:
        """Sign and order, no size."""
        return Promises()

    def fit(self, model: Any, train: Examples) -> FittedProducts:
        """Look at what there is; gradients are taken when queries come."""
        require(model, [Differentiable], "GradCos")
        return FittedProducts(self, model, train, as_it_is(model), self.layers, self.by)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedProducts:
        """The same; nothing was prepared."""
        return self.fit(model, train)

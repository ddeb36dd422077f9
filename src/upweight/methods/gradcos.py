"""GradCos: cosines of gradients at the trained parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from upweight.core.attributor import Promises
from upweight.core.deprecation import ReplacedBy, accept_old_fields
from upweight.core.examples import Examples
from upweight.core.model import Differentiable
from upweight.methods.parts.gradient_products import Cosines, FittedProducts, final_checkpoint


@accept_old_fields({"layers": ReplacedBy("modules")})
@dataclass(frozen=True, kw_only=True)
class GradCos(Cosines):
    """−cos(∇m_q, ∇ℓ_i) at the parameters of the model: GAS with the final checkpoint alone. RANK.

    Args:
        by: divide by the norm over "all" parameters, or in each "layer" by its own norm, so that no layer dominates.
        modules: the part of the model whose gradients count: patterns of modules, or pattern → rows of embeddings (see
            `Influence`); "last" is the last layer. None for all of it.
    """

    summary = "Cosines of gradients at the trained parameters"
    cost = "that of GradDot"
    needs = (Differentiable,)
    answers_from_store = True

    @property
    def promises(self) -> Promises:
        """A lower floor than GradDot: the norms of the gradients are divided out."""
        return Promises(correlation=0.05)

    def fit(self, model: Any, train: Examples, store: Any = None) -> FittedProducts:
        """Check the settings; gradients are taken when queries come.

        With `store=uw.Store(folder)` training gradients are read from there, and built first if they are missing.
        """
        return FittedProducts(self, model, train, final_checkpoint(model), self.modules, self.by)

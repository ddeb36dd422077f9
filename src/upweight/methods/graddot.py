"""GradDot: inner products of gradients at the trained parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from upweight.core.attributor import Attributor, Promises
from upweight.core.deprecation import RenamedAttribute, ReplacedBy, accept_old_fields
from upweight.core.examples import Examples
from upweight.core.model import Differentiable
from upweight.core.modules import Modules
from upweight.methods.parts.gradient_products import FittedProducts, final_checkpoint


@accept_old_fields({"layers": ReplacedBy("modules")})
@dataclass(frozen=True, kw_only=True)
class GradDot(Attributor):
    """−∇m_q·∇ℓ_i at the parameters of the model: TracIn with the final checkpoint alone and a learning rate of 1. RANK.

    Args:
        modules: the part of the model whose gradients count: patterns of modules, or pattern → rows of embeddings (see
            `Influence`); "last" is the last layer. None for all of it.
    """

    summary = "Inner products of gradients at the trained parameters"
    cost = "one pass over queries and training set, and their inner products"
    needs = (Differentiable,)
    answers_from_store = True

    modules: Modules | None = None
    layers = RenamedAttribute("modules")

    @property
    def promises(self) -> Promises:
        """Part of the order of effects; more of it, the more equal the curvature is in all directions."""
        return Promises(correlation=0.1)

    def fit(self, model: Any, train: Examples, store: Any = None) -> FittedProducts:
        """Check the settings; gradients are taken when queries come.

        With `store=uw.Store(folder)` training gradients are read from there, and built first if they are missing.
        """
        return FittedProducts(self, model, train, final_checkpoint(model), self.modules)

"""TracIn: inner products of gradients at the checkpoints of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Promises
from upweight.core.checkpoints import Checkpointed
from upweight.core.deprecation import RenamedAttribute, ReplacedBy, accept_old_fields
from upweight.core.examples import Examples
from upweight.core.modules import Modules
from upweight.methods.parts.checkpoint_state import require_same_checkpoints
from upweight.methods.parts.gradient_products import FittedProducts


@accept_old_fields({"layers": ReplacedBy("modules")})
@dataclass(frozen=True, kw_only=True)
class TracIn(Attributor):
    """Pruthi et al. (2020), TracInCP: −Σ_c τ_c ∇m_q(θ_c)·∇ℓ_i(θ_c) over saved checkpoints. RANK.

    τ_c is the effective learning rate of checkpoint c: the sum of the learning rates of the steps nearest to it, times
    1/(1 − momentum). With `modules="last"` this is TracIn-last: for a linear head the product of inputs and output
    gradients, (a_q·a_i)(s_q·s_i), and nothing below the head is differentiated.

    Args:
        modules: the part of the model whose gradients count: patterns of modules, or pattern → rows of embeddings (see
            `Influence`); "last" is the last layer. None for all of it.
    """

    summary = "Inner products of gradients at the checkpoints of a training"
    paper = "Pruthi et al. (2020)"
    cost = "per checkpoint one pass over queries and training set, and their inner products"
    needs = (Checkpointed,)
    variants: ClassVar = {"last layer": {"modules": "last"}}

    modules: Modules | None = None
    layers = RenamedAttribute("modules")

    @property
    def promises(self) -> Promises:
        """Part of the order of effects; more of it, the more equal the curvature is in all directions."""
        return Promises(correlation=0.1)

    def fit(self, model: Any, train: Examples) -> FittedProducts:
        """Check the settings; gradients are taken when queries come."""
        return FittedProducts(self, model, train, model.checkpoints(), self.modules)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedProducts:
        """Fit again, and check that the checkpoints are the same."""
        fitted = self.fit(model, train)
        require_same_checkpoints(facts, fitted.state()[1])
        return fitted

"""GAS: cosines of gradients at the checkpoints of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from upweight.core.attributor import Promises
from upweight.core.checkpoints import Checkpointed
from upweight.core.deprecation import ReplacedBy, accept_old_fields
from upweight.core.examples import Examples
from upweight.methods.parts.checkpoint_state import require_same_checkpoints
from upweight.methods.parts.gradient_products import Cosines, FittedProducts


@accept_old_fields({"layers": ReplacedBy("modules")})
@dataclass(frozen=True, kw_only=True)
class GAS(Cosines):
    """Hammoudeh & Lowd (2022), GAS, first named CosIn: −Σ_c τ_c cos(∇m_q, ∇ℓ_i) over saved checkpoints. RANK.

    Because gradients are normalised, examples with large losses do not rank first for every query. The method was made
    to find poisoned examples.

    Args:
        by: divide by the norm over "all" parameters, or in each "layer" by its own norm, so that no layer dominates.
        modules: the part of the model whose gradients count: patterns of modules, or pattern → rows of embeddings (see
            `Influence`); "last" is the last layer. None for all of it.
    """

    summary = "Cosines of gradients at the checkpoints of a training"
    paper = "Hammoudeh & Lowd (2022)"
    cost = "that of TracIn"
    needs = (Checkpointed,)
    variants: ClassVar = {"by layer": {"by": "layer"}}

    @property
    def promises(self) -> Promises:
        """A lower floor than TracIn: the norms of the gradients are divided out."""
        return Promises(correlation=0.05)

    def fit(self, model: Any, train: Examples) -> FittedProducts:
        """Check the settings; gradients are computed when queries are attributed."""
        return FittedProducts(self, model, train, model.checkpoints(), self.modules, self.by)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedProducts:
        """Fit again, and check that the checkpoints are the same."""
        fitted = self.fit(model, train)
        require_same_checkpoints(facts, fitted.state()[1])
        return fitted

"""Weight covariance: the derivative of a black box in its example weights, from refits with perturbed weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Promises
from upweight.core.blocks import require_count
from upweight.core.examples import Examples
from upweight.core.laws import Law
from upweight.core.refittable import Refittable
from upweight.core.scores import Unit
from upweight.methods.parts.random_refits import FittedRandomRefits, random_refits

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class WeightCovariance(Attributor):
    """score[q, i] = Cov(m_q, wᵢ) / Var(wᵢ) over refits with weights wᵢ = 1 ± spread, with a 90 % interval. EFFECT.

    For small spreads it is the derivative ∂m_q/∂wᵢ, the effect of removal to first order, for a model of which nothing
    is known but its predictions. It is the infinitesimal jackknife (Efron 1982, Giordano et al. 2019) by regression.
    From 2 (n + 1) refits on, the regression is on all examples together; with fewer, on each alone.

    Args:
        refits: how many models are trained.
        spread: how far each weight is from 1. Estimators that jump (trees, neighbours) need large ones.
        seed: of the perturbations. Every training has another seed, so intervals hold the noise of seeds too.
        processes: how many trainings run at once; 1 trains in this process, None uses all processors.
    """

    summary = "The derivative of any model in its example weights, from refits with perturbed weights"
    paper = "Giordano et al. (2019), 1806.00550"
    cost = "`refits` trainings on all examples"
    unit = Unit.EFFECT
    needs = (Refittable,)

    refits: int = 256
    spread: float = 0.2
    seed: int = 0
    processes: int | None = 1

    def __post_init__(self) -> None:
        require_count("refits", self.refits, least=8)
        if not 0.0 < self.spread < 1.0:
            raise ValueError(f"expected a spread between 0 and 1, got {self.spread!r}")

    @property
    def promises(self) -> Promises:
        """The leave-one-out effect to first order, if there are enough refits."""
        waives = {Law.WEIGHTS: "copies of an example are perturbed independently"}
        if self.refits < 256:
            waives[Law.COPY] = "with few refits other examples disturb the score"
            return Promises(no_floor="with few refits scores are noisy; their intervals say how much", waives=waives)
        return Promises(correlation=0.9, slope=(0.7, 1.4), waives=waives)

    def fit(self, model: Any, train: Examples) -> FittedWeightCovariance:
        """Train with perturbed weights. Raises TypeError if the estimator's `fit` takes no sample weights."""
        if not model.takes_fractions:
            raise TypeError(
                f"WeightCovariance needs an estimator whose fit takes sample weights, which that of this "
                f"{model.name} does not; use uw.Datamodels(), which trains on subsets"
            )

        def draw(generator: np.random.Generator, count: int) -> Array:
            return 1.0 + self.spread * generator.choice([-1.0, 1.0], count)

        trained = random_refits(model, train, self.refits, draw, self.seed, self.processes)
        return FittedWeightCovariance(self, model, train, Unit.EFFECT, trained)


class FittedWeightCovariance(FittedRandomRefits[WeightCovariance]):
    """The models of perturbed weights, ready to be measured."""

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How many models were trained, and with which weights."""
        refits, spread = len(self.trained.models), self.recipe.spread
        sentence = f"Scores come from {refits:,} refits with every example weight at {1 - spread:g} or {1 + spread:g}."
        return {"trainings": refits, "warnings": [*self.model.notes, sentence]}

"""Datamodels: a linear function of which examples are in a random subset, fitted to models retrained on subsets."""

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
class Datamodels(Attributor):
    """score[q, i] = mean effect on m_q of adding i to a random subset of the training set, with a 90 % interval. RANK.

    Every example is in a subset with probability `share`, independently. The coefficients of a regression of the
    measurement on membership estimate the mean effects (Ilyas et al. 2022). With share = ½ they are Banzhaf values
    (Wang & Jia 2023). From 2 (n + 1) refits on, the regression is on all examples together; with fewer, on each alone.

    Args:
        refits: how many models are trained.
        share: the probability with which a subset holds an example.
        seed: of the subsets. Every training has another seed, so intervals hold the noise of seeds too.
        processes: how many trainings run at once; 1 trains in this process, None uses all processors.
    """

    summary = "The mean effect of each example on random subsets, with intervals; with share ½ Banzhaf values"
    paper = "Ilyas et al. (2022), 2202.00622; Wang & Jia (2023), 2205.15466"
    cost = "`refits` trainings, each on `share` of the training set"
    unit = Unit.RANK
    needs = (Refittable,)

    refits: int = 256
    share: float = 0.5
    seed: int = 0
    processes: int | None = 1

    def __post_init__(self) -> None:
        require_count("refits", self.refits, least=8)
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"expected a share between 0 and 1, got {self.share!r}")

    @property
    def promises(self) -> Promises:
        """No floor against leave-one-out: the effect on a random subset is another number."""
        waives = {Law.WEIGHTS: "copies of an example are drawn independently of each other"}
        return Promises(no_floor="the mean effect on subsets is not the effect on the whole set", waives=waives)

    def fit(self, model: Any, train: Examples) -> FittedDatamodels:
        """Train on `refits` random subsets. Subsets on which the model cannot be trained are drawn anew."""

        def draw(generator: np.random.Generator, count: int) -> Array:
            return (generator.random(count) < self.share).astype(np.float64)

        trained = random_refits(model, train, self.refits, draw, self.seed, self.processes)
        return FittedDatamodels(self, model, train, Unit.RANK, trained)


class FittedDatamodels(FittedRandomRefits[Datamodels]):
    """The models of random subsets, ready to be measured."""

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How many models were trained, and how many subsets had to be drawn anew."""
        refits, redrawn = len(self.trained.models), self.trained.redrawn
        sentences = [
            f"Scores come from {refits:,} refits on random subsets with {self.recipe.share:.0%} of the examples."
        ]
        if not self.trained.is_joint:
            needed = 2 * (len(self.trained.positions) + 1)
            sentences.append(
                f"With this few refits every example is regressed on alone; intervals are narrower from {needed:,} on."
            )
        if redrawn:
            sentences.append(f"{redrawn:,} subsets were drawn anew, since the model cannot be trained on them.")
        return {"trainings": refits, "redrawn": redrawn, "warnings": [*self.model.notes, *sentences]}

"""Chance: random scores, with which every other method is compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.examples import Examples
from upweight.core.laws import Law
from upweight.core.model import Measurable
from upweight.core.scores import Unit
from upweight.core.weights import sample_weights

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Chance(Attributor):
    """Independent standard normal scores, the same whenever the two ids are the same. RANK.

    The baseline that knows nothing about model or data.
    """

    summary = "Random scores, with which every other method is compared"
    cost = "nothing"
    needs = (Measurable,)

    seed: int = 0

    @property
    def promises(self) -> Promises:
        """No floor: the scores do not depend on the examples."""
        reason = "chance does not look at the examples"
        waives = {
            Law.COPY: reason,
            Law.WEIGHTS: reason,
            Law.SELF: "self-influence is drawn independently of the scores",
        }
        return Promises(no_floor=reason, waives=waives)

    def fit(self, model: Any, train: Examples) -> FittedChance:
        """Return the fitted form; there is nothing to compute."""
        return FittedChance(self, model, train, Unit.RANK)


class FittedChance(Fitted[Chance, Measurable]):
    """Chance, ready to answer."""

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """One block. Each score follows from noise that is seeded by its two ids, so the order changes nothing."""
        train_noise = np.stack([self._noise("train", i) for i in self.train.ids.tolist()])
        query_noise = np.stack([self._noise("query", i) for i in queries.ids.tolist()])
        scores = query_noise @ train_noise.T / np.sqrt(train_noise.shape[1])
        yield slice(0, len(self.train)), np.where(sample_weights(self.train) > 0, scores, 0.0)

    def self_values(self) -> Array:
        """One standard normal number per training example."""
        noise = np.array([self._noise("self", i)[0] for i in self.train.ids.tolist()])
        return np.where(sample_weights(self.train) > 0, noise, 0.0)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """A warning that the scores are random."""
        return {"warnings": ["These scores are random: a floor for comparison, not an answer."]}

    def _noise(self, role: str, identifier: Any) -> Array:
        """Sixteen standard normal numbers that depend on the seed, the role and the id alone."""
        key = [self.recipe.seed, *f"{role}:{type(identifier).__name__}:{identifier}".encode()]
        return np.random.default_rng(key).standard_normal(16)

"""Chance: random scores, the floor of every table."""

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
    """Independent standard normal scores, the same for the same pair of ids: what knowing nothing looks like (RANK)."""

    summary = "Random scores, the floor of every table"
    cost = "nothing"
    needs = (Measurable,)

    seed: int = 0

    @property
    def promises(self) -> Promises:
        """Nothing about the truth."""
        blind = "chance does not look at the examples"
        waives = {Law.COPY: blind, Law.WEIGHTS: blind, Law.SELF: "each example's own score is a draw of its own"}
        return Promises(no_floor=blind, waives=waives)

    def fit(self, model: Any, train: Examples) -> FittedChance:
        """Nothing to learn."""
        return FittedChance(self, model, train, Unit.RANK)


class FittedChance(Fitted[Chance, Measurable]):
    """Chance, ready to answer."""

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """One block: each score is drawn from a generator seeded by its two ids, so order changes nothing."""
        columns = np.stack([self._noise("train", i) for i in self.train.ids.tolist()])
        rows = np.stack([self._noise("query", i) for i in queries.ids.tolist()])
        scores = rows @ columns.T / np.sqrt(columns.shape[1])
        yield slice(0, len(self.train)), np.where(sample_weights(self.train) > 0, scores, 0.0)

    def self_values(self) -> Array:
        """Normal, one per example."""
        noise = np.array([self._noise("self", i)[0] for i in self.train.ids.tolist()])
        return np.where(sample_weights(self.train) > 0, noise, 0.0)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """A reminder."""
        return {"warnings": ["These scores are random: a floor for comparison, not an answer."]}

    def _noise(self, role: str, identifier: Any) -> Array:
        key = [self.recipe.seed, *f"{role}:{type(identifier).__name__}:{identifier}".encode()]
        return np.random.default_rng(key).standard_normal(16)

"""A stand-in whose training is an additive game: every effect of every removal is known in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import upweight as uw
from upweight.core.model import Predictions, Retrainable


@dataclass(frozen=True)
class Game(Retrainable):
    """measure(q) = Σ of the worths of the players that are left (+ noise of the seed); wins when that is positive.

    `pairs` adds worth[q, i, j] for players that are both there: what no sum of scores can know.
    """

    worth: np.ndarray  # (queries, players)
    noise: float = 0.0
    refuses: frozenset[int] = frozenset()  # players without whom there is no game
    trained: np.ndarray | None = None
    seed: int = 0
    log: list[Any] = field(default_factory=list, compare=False)

    @property
    def measurement(self):
        return "−loss (points)"

    @property
    def parameters(self):
        return np.ones(self.worth.shape[1]) if self.trained is None else self.trained

    def with_parameters(self, parameters):
        return Game(self.worth, self.noise, self.refuses, parameters, self.seed, self.log)

    def measure(self, queries):
        places = np.array([int(str(i)[1:]) for i in queries.ids])
        said = self.worth[places] @ self.parameters
        if self.noise and self.trained is not None:
            key = [self.seed, *(self.trained > 0).astype(int)]
            said = said + self.noise * np.random.default_rng(key).standard_normal(len(self.worth))[places]
        return said

    def predict(self, examples):
        return Predictions(tuple("win" if v > 0 else "lose" for v in self.measure(examples)), ("lose", "win"))

    def retrain(self, train, weights, seed=0):
        gone = set(np.flatnonzero(weights == 0).tolist())
        if gone & self.refuses:
            raise ValueError("nobody of class 'king' is left")
        self.log.append((tuple(sorted(gone)), seed))
        return Game(self.worth, self.noise, self.refuses, np.asarray(weights, dtype=float), seed, self.log)


def game(queries=4, players=30, seed=0, **more):
    """(model, train, queries, scores = the true effects)."""
    rng = np.random.default_rng(seed)
    worth = rng.standard_normal((queries, players))
    train = uw.Examples(np.zeros((players, 1)), np.zeros(players, dtype=int), ids=[f"p{i}" for i in range(players)])
    asked = uw.Examples(np.zeros((queries, 1)), ["win"] * queries, ids=[f"q{i}" for i in range(queries)])
    model = Game(worth, **more)
    scores = uw.Scores(worth, asked.ids, train.ids, uw.Unit.EFFECT, model.measurement, predictions=model.predict(asked))
    return model, train, asked, scores

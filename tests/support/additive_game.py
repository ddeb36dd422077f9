"""A model whose training is an additive game: the effect of every removal is known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import upweight as uw
from upweight.core.model import Predictions, Retrainable
from upweight.core.stackable import Stack, Stackable

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Game(Retrainable):
    """measure(q) = Σ of the worths of the remaining players (+ noise of the seed); predicts "win" if it is positive."""

    worth: Array  # (queries, players)
    noise: float = 0.0
    refuses: frozenset[int] = frozenset()  # players without whom training raises an error
    trained: Array | None = None
    seed: int = 0
    log: list[Any] = field(default_factory=list, compare=False)

    @property
    def measurement(self) -> str:
        return "−loss (points)"

    @property
    def parameters(self) -> Array:
        return np.ones(self.worth.shape[1]) if self.trained is None else self.trained

    def with_parameters(self, parameters: Array) -> Game:
        return Game(self.worth, self.noise, self.refuses, parameters, self.seed, self.log)

    def measure(self, queries: uw.Examples) -> Array:
        rows = np.array([int(str(i)[1:]) for i in queries.ids])
        measured = self.worth[rows] @ self.parameters
        if self.noise and self.trained is not None:
            key = [self.seed, *(self.trained > 0).astype(int)]
            measured = measured + self.noise * np.random.default_rng(key).standard_normal(len(self.worth))[rows]
        return measured

    def predict(self, examples: uw.Examples) -> Predictions:
        return Predictions(tuple("win" if v > 0 else "lose" for v in self.measure(examples)), ("lose", "win"))

    def retrain(self, train: uw.Examples, weights: Array, seed: int = 0) -> Game:
        removed = set(np.flatnonzero(weights == 0).tolist())
        if removed & self.refuses:
            raise ValueError("nobody of class 'king' is left")
        self.log.append((tuple(sorted(removed)), seed))
        return Game(self.worth, self.noise, self.refuses, np.asarray(weights, dtype=float), seed, self.log)


@dataclass(frozen=True)
class StackedGame(Game, Stackable):
    """A game of which `stack_size` trainings run at once; `batches` logs how many did."""

    stack_size: int = 1
    batches: list[int] = field(default_factory=list, compare=False)

    def stack(self, train: uw.Examples) -> Stack:
        return Stack(self.stack_size, "")

    def retrain_many(self, train: uw.Examples, weights: Array, seeds: Sequence[int]) -> list[Game]:
        self.batches.append(len(weights))
        return [self.retrain(train, row, seed) for row, seed in zip(weights, seeds, strict=True)]


def game(
    queries: int = 4, players: int = 30, seed: int = 0, **more: Any
) -> tuple[Game, uw.Examples, uw.Examples, uw.Scores]:
    """(model, train, queries, scores = the true effects)."""
    rng = np.random.default_rng(seed)
    worth = rng.standard_normal((queries, players))
    train = uw.Examples(np.zeros((players, 1)), np.zeros(players, dtype=int), ids=[f"p{i}" for i in range(players)])
    query_examples = uw.Examples(np.zeros((queries, 1)), ["win"] * queries, ids=[f"q{i}" for i in range(queries)])
    model = Game(worth, **more)
    scores = uw.Scores(
        worth,
        query_examples.ids,
        train.ids,
        uw.Unit.EFFECT,
        model.measurement,
        predictions=model.predict(query_examples),
    )
    return model, train, query_examples, scores

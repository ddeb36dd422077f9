"""The recommenders under explanation: NCF, whose parameters remember ratings, and RCF, which reads them as well."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from experiments.recommenders import attention, ncf, rcf
from experiments.recommenders.attention import AttentionCase, by_attention, film_weights, scores_without
from experiments.recommenders.counterfactuals import (
    DAMPING,
    METHODS,
    SIZES,
    Array,
    Case,
    Chosen,
    Recommender,
    by_influence,
)
from experiments.recommenders.relations import Relations
from numpy.typing import NDArray

import upweight as uw


@dataclass(frozen=True, eq=False)
class OfNCF(Recommender):
    """Neural collaborative filtering: the influence of a rating is that on the user's rows of the embeddings."""

    methods: ClassVar = METHODS
    rivals: ClassVar = ("FIA",)
    train: uw.Examples

    def users(self) -> NDArray[np.int64]:
        """All users."""
        return np.unique(self.train.x[:, 0])

    def cases(self, users: NDArray[np.int64], seed: int) -> list[Case]:
        """The recommendations to these users."""
        model = ncf.model(self.train, seed)
        return [self.explained(model, user) for user in users.tolist()]

    def explained(self, model: uw.TorchModel, user: int) -> Case:
        """The recommendation to one user and the influences on it, without retraining."""
        wall, cpu = time.perf_counter(), time.process_time()
        items = ncf.unrated(self.train, user)
        candidates = uw.Examples(np.stack([np.full(len(items), user), items], axis=1))
        scores = model.measure(candidates)
        best = np.argsort(-scores, kind="stable")[: max(SIZES)]
        recipe = uw.Influence(modules={"user_*": [user]}, damping=DAMPING)
        values = recipe.fit(model, self.train).attribute(candidates.take(best)).values
        mine = np.flatnonzero(self.train.x[:, 0] == user)
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        return Case(user, items[best], scores[best], values[:, mine], mine, seconds)

    def chosen(self, case: Case, method: str, k: int) -> Chosen | None:
        """The set of a method among the first k items."""
        return by_influence(case, method, k)

    def retrained_scores(
        self, cases: Sequence[Case], removals: list[tuple[int, tuple[int, ...]]], seed: int
    ) -> list[Array]:
        """Scores after retraining, of many nets together."""
        nets = []
        for start in range(0, len(removals), ncf.TOGETHER):
            part = removals[start : start + ncf.TOGETHER]
            weights = np.ones((len(part), len(self.train)))
            for row, (c, removed) in zip(weights, part, strict=True):
                row[cases[c].mine[list(removed)]] = 0.0
            nets += ncf.train_nets(self.train, weights, seed)
        models = [uw.TorchModel(net, ncf.squared_error, ncf.rating) for net in nets]
        pairs = [np.stack([np.full(len(cases[c].items), cases[c].user), cases[c].items], axis=1) for c, _ in removals]
        return [model.measure(uw.Examples(of_case)) for model, of_case in zip(models, pairs, strict=True)]


@dataclass(frozen=True, eq=False)
class OfRCF(Recommender):
    """Relational collaborative filtering: a film acts through the user's embedding and through the history.

    The influence is the sum of both: that on the user's row of the embedding, and the change of the score by the same
    parameters if the film leaves the history.
    """

    methods: ClassVar = (*METHODS, *attention.METHODS)
    rivals: ClassVar = ("FIA", "attention")
    relations: Relations

    def users(self) -> NDArray[np.int64]:
        """All users."""
        return np.unique(self.relations.train.x[:, 0])

    def cases(self, users: NDArray[np.int64], seed: int) -> list[AttentionCase]:
        """The recommendations to these users."""
        net = rcf.train_net(self.relations, np.ones(len(self.relations.train)), seed)
        return [self.explained(net, user) for user in users.tolist()]

    def explained(self, net: rcf.RCF, user: int) -> AttentionCase:
        """The recommendation to one user and the influences on it, without retraining."""
        wall, cpu = time.perf_counter(), time.process_time()
        train, items = self.relations.train, self.relations.unrated(user)
        scores = scores_without(net, user, items, np.array([], dtype=np.intp))
        best = np.argsort(-scores, kind="stable")[: max(SIZES)]
        items, scores = items[best], scores[best]
        triples = np.stack([np.full(len(items), user), items, items], axis=1)
        mine = np.flatnonzero(train.x[:, 0] == user)
        recipe = uw.Influence(modules={"user": [user]}, damping=DAMPING)
        by_embedding = recipe.fit(rcf.model(net), train).attribute(uw.Examples(triples)).values[:, mine]
        by_history = scores[:, None] - np.stack([scores_without(net, user, items, [one]) for one in mine], axis=1)
        weights = film_weights(net, user, int(items[0]), mine)
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        without = partial(_without, net, user, items, mine)
        return AttentionCase(user, items, scores, by_embedding + by_history, mine, seconds, weights, without)

    def chosen(self, case: AttentionCase, method: str, k: int) -> Chosen | None:
        """The set of a method among the first k items."""
        return (by_attention if method in attention.METHODS else by_influence)(case, method, k)

    def retrained_scores(
        self, cases: Sequence[AttentionCase], removals: list[tuple[int, tuple[int, ...]]], seed: int
    ) -> list[Array]:
        """Scores after retraining."""
        scores = []
        for c, removed in removals:
            case, weights = cases[c], np.ones(len(self.relations.train))
            weights[case.mine[list(removed)]] = 0.0
            net = rcf.train_net(self.relations, weights, seed)
            scores.append(scores_without(net, case.user, case.items, np.array([], dtype=np.intp)))
        return scores


def _without(net: rcf.RCF, user: int, items: NDArray[np.int64], mine: NDArray[np.intp], removed: list[int]) -> Array:
    return scores_without(net, user, items, mine[removed])

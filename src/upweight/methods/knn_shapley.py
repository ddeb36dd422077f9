"""KNN-Shapley: Shapley values of training examples in a nearest-neighbour predictor on the model's features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts, Blocks
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import blocks
from upweight.core.examples import Examples
from upweight.core.input_kinds import is_sparse
from upweight.core.model import Embeddable
from upweight.core.scores import Unit
from upweight.core.weights import example_counts, sample_weights
from upweight.methods.parts.neighbour_game import classification_values, regression_values, squared_distances

Array = NDArray[np.float64]
MAX_QUERIES = 128  # queries compared at a time: few, so that progress is reported often
MAX_DISTANCES = 2**22  # between queries and training examples that are held in memory at once
FAITHFUL = 0.8  # share of queries for which neighbours and model agree, below which an answer has a warning
DIGITS = 12  # of squared distances relative to the longest row; distances equal to these digits are ordered by ids


@dataclass(frozen=True, kw_only=True)
class KNNShapley(Attributor):
    """Jia et al. (2019), exact Shapley values of the k-nearest-neighbour game, in closed form. RANK.

    The players are the training examples. The utility of a coalition is the share of the query's label among its k
    nearest members (a missing member counts 0); for real targets it is −(sum of their targets / k − target)².
    Neighbours are found by Euclidean distance between the features on which the model's last step works (`embed`). The
    value of an example in this game is not what the model would lose without it.

    Args:
        k: number of neighbours that vote.

    Whole sample weights are numbers of copies. Other weights above 0 have no effect on a vote.
    """

    summary = "Shapley values of training examples in a nearest-neighbour predictor on the model's features"
    paper = "Jia et al. (2019), 1908.08619, theorems 1 and 2"
    cost = "features of all examples, and a sort of the training examples by distance for every query"
    needs = (Embeddable,)

    k: int = 5

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"expected k ≥ 1 neighbours, got {self.k!r}")

    @property
    def promises(self) -> Promises:
        """No floor against retraining the model: the values are those of another predictor."""
        return Promises(no_floor="the values are those of a nearest-neighbour vote, which is not the model")

    def fit(self, model: Any, train: Examples) -> FittedKNNShapley:
        """Compute the features of the training set."""
        _labels(train, "the training set")
        return FittedKNNShapley(self, model, train, Unit.RANK)


class FittedKNNShapley(Fitted[KNNShapley, Embeddable]):
    """The features of the training set, ready to be compared with those of queries."""

    def __init__(self, recipe: KNNShapley, model: Embeddable, train: Examples, unit: Unit) -> None:
        super().__init__(recipe, model, train, unit)
        counts = example_counts(sample_weights(train)).astype(np.intp)
        self._players = np.repeat(np.arange(len(train)), counts)  # positions, one for every copy
        self._features = model.embed(train)
        squares = self._features.multiply(self._features) if is_sparse(self._features) else self._features**2
        self._longest = float(squares.sum(axis=1).max()) or 1.0  # the squared length of the longest row of features

    def blocks(self, queries: Examples) -> Blocks:
        """One block of all training examples, and how often the neighbours' vote is what the model predicts.

        Raises ValueError for queries without labels.
        """
        targets, features = _labels(queries, "the queries"), self.model.embed(queries)
        values, votes = np.zeros((len(queries), len(self.train))), list[Any]()
        for block in blocks(len(queries), self._query_block):
            order = self._nearest(features[block])
            values[block] = self._values(order, targets[block])
            votes += self._votes(order)
        yield slice(0, len(self.train)), values
        return self._faithfulness(votes, self.model.predict(queries).predicted)

    def self_values(self) -> Array:
        """The value of each example for itself as a query, whose nearest neighbour it is."""
        targets, self_values = _labels(self.train, "the training set"), np.empty(len(self.train))
        for block in blocks(len(self_values), self._query_block):
            values = self._values(self._nearest(self._features[block]), targets[block])
            self_values[block] = np.diagonal(values[:, block])
        return self_values

    @property
    def _query_block(self) -> int:
        """How many queries are compared with all players at once."""
        return max(1, min(MAX_QUERIES, MAX_DISTANCES // max(len(self._players), 1)))

    def _nearest(self, features: Any) -> NDArray[np.intp]:
        """Positions of the players, nearest first and equally near ones in the order of their ids, (m, players)."""
        distances = np.round(squared_distances(features, self._features)[:, self._players] / self._longest, DIGITS)
        rank = np.argsort(np.argsort(self.train.ids))
        return self._players[np.lexsort((np.broadcast_to(rank[self._players], distances.shape), distances))]

    def _values(self, order: NDArray[np.intp], targets: NDArray[Any]) -> Array:
        """Shapley values of all training examples for these queries, (m, n)."""
        ranked = _labels(self.train, "the training set")[order]
        is_real, k = ranked.dtype.kind == "f", self.recipe.k
        if is_real:
            player_values = regression_values(ranked, targets.astype(float), k)
        else:
            player_values = classification_values(ranked == targets[:, None], k)
        values = np.zeros((len(targets), len(self.train)))
        np.add.at(values, (np.arange(len(targets))[:, None], order), player_values)
        return values

    def _votes(self, order: NDArray[np.intp]) -> list[Any]:
        """The label for which most of the nearest neighbours vote, for every query; empty if targets are real."""
        labels = _labels(self.train, "the training set")
        if labels.dtype.kind == "f":
            return []
        winners = [Counter(row.tolist()).most_common(1)[0][0] for row in labels[order[:, : self.recipe.k]]]
        return [self.train.labels.get(label, label) for label in winners]

    def _faithfulness(self, votes: list[Any], predicted: Sequence[Any]) -> AnswerFacts:
        """The share of queries for which the vote is the model's prediction, with a warning if it is small."""
        if not votes:
            return AnswerFacts()
        share = float(np.mean([vote == prediction for vote, prediction in zip(votes, predicted, strict=True)]))
        facts: dict[str, Any] = {"faithful": share}
        if share < FAITHFUL:
            facts["warnings"] = [
                f"The {self.recipe.k} nearest neighbours agree with the model on only {share:.0%} of the queries: "
                "these values explain the neighbours' vote, not the model."
            ]
        return AnswerFacts(diagnostics=facts)


def _labels(examples: Examples, what: str) -> NDArray[Any]:
    """One label or target per example. Raises ValueError if there are none."""
    if examples.y is None or examples.y.ndim != 1:
        raise ValueError(f"expected {what} with one label per example, on which the nearest neighbours vote")
    return examples.y

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

Array = NDArray[np.float64]
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
        return max(1, MAX_DISTANCES // max(len(self._players), 1))

    def _nearest(self, features: Any) -> NDArray[np.intp]:
        """Positions of the players, nearest first and equally near ones in the order of their ids, (m, players)."""
        distances = np.round(_distances(features, self._features)[:, self._players] / self._longest, DIGITS)
        rank = np.argsort(np.argsort(self.train.ids))
        return self._players[np.lexsort((np.broadcast_to(rank[self._players], distances.shape), distances))]

    def _values(self, order: NDArray[np.intp], targets: NDArray[Any]) -> Array:
        """Shapley values of all training examples for these queries, (m, n)."""
        ranked = _labels(self.train, "the training set")[order]
        is_real, k = ranked.dtype.kind == "f", self.recipe.k
        if is_real:
            player_values = _regression(ranked, targets.astype(float), k)
        else:
            player_values = _classification(ranked == targets[:, None], k)
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


def _classification(same: NDArray[np.bool_], k: int) -> Array:
    """Values of examples in the order of their distance, from whether they have the query's label; both (m, n).

    Theorem 1: s_N = [y_N = y] min(k, N)/(kN), s_i = s_{i+1} + ([y_i = y] − [y_{i+1} = y]) min(k, i)/(ki).
    """
    n = same.shape[1]
    share = np.minimum(k, np.arange(1, n + 1)) / (k * np.arange(1, n + 1))
    steps = same.astype(np.float64)
    steps[:, :-1] -= same[:, 1:]
    return np.cumsum((steps * share)[:, ::-1], axis=1)[:, ::-1]


def _regression(targets: Array, target: Array, k: int) -> Array:
    """Values of examples in the order of their distance, from their targets (m, n) and those of the queries (m,).

    Theorem 2, with the utility −t² of the empty coalition.
    With mᵢ = min(k, i) and B_l = min(k−1, l−2) min(k, l−1) / ((l−1)(l−2)):

        s_N = −y_N/k ((m_N/N) (y_N/k − 2t) + m_N (m_N − 1) / (k N (N−1)) Σ_{l<N} y_l)
        s_i = s_{i+1} + (y_{i+1} − y_i)/k ((mᵢ/i) ((y_i + y_{i+1})/k − 2t + (mᵢ−1) / (k (i−1)) Σ_{l<i} y_l)
                                           + 1/k Σ_{l≥i+2} B_l y_l)
    """
    n = targets.shape[1]
    i, t = np.arange(1, n + 1), target[:, None]
    m = np.minimum(k, i)
    nearer = np.cumsum(targets, axis=1) - targets
    pairs = (m - 1) / np.maximum(i - 1, 1) * nearer / k  # of the example with every nearer one
    values = np.empty_like(targets)
    values[:, -1] = -targets[:, -1] / k * m[-1] / n * (targets[:, -1] / k - 2 * target + pairs[:, -1])
    weights = np.minimum(k - 1, i - 2) * m[np.maximum(i - 2, 0)] / np.maximum((i - 1) * (i - 2), 1)
    farther = np.cumsum((weights * targets)[:, ::-1], axis=1)[:, ::-1] / k  # from the example itself on
    farther = np.concatenate([farther[:, 2:], np.zeros((len(targets), 1))], axis=1)[:, : n - 1]
    current, following = targets[:, :-1], targets[:, 1:]
    factor = m[:-1] / i[:-1] * ((current + following) / k - 2 * t + pairs[:, :-1]) + farther
    values[:, :-1] = (following - current) / k * factor
    return np.cumsum(values[:, ::-1], axis=1)[:, ::-1]


def _distances(queries: Any, train: Any) -> Array:
    """Squared Euclidean distances (m, n)."""
    if is_sparse(train):
        from sklearn.metrics.pairwise import euclidean_distances

        return np.asarray(euclidean_distances(queries, train, squared=True))
    from scipy.spatial.distance import cdist

    q, x = (np.asarray(part, dtype=np.float64).reshape(len(part), -1) for part in (queries, train))
    return np.asarray(cdist(q, x, "sqeuclidean"))


def _labels(examples: Examples, what: str) -> NDArray[Any]:
    """One label or target per example. Raises ValueError if there are none."""
    if examples.y is None or examples.y.ndim != 1:
        raise ValueError(f"expected {what} with one label per example, on which the nearest neighbours vote")
    return examples.y

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
from upweight.core.examples import Examples
from upweight.core.input_kinds import is_sparse
from upweight.core.model import Embeddable
from upweight.core.scores import Unit
from upweight.core.weights import example_counts, sample_weights

Array = NDArray[np.float64]
PAIRS = 2**22  # distances of queries and training examples that are held at a time
FAITHFUL = 0.8  # share of queries in which neighbours and model agree, below which the reader is warned
DIGITS = 12  # of a squared distance, relative to the longest row of features: closer ones are equal, and go by ids


@dataclass(frozen=True, kw_only=True)
class KNNShapley(Attributor):
    """Jia et al. (2019), exact Shapley values of the k-nearest-neighbour game, in closed form. RANK.

    The players are the training examples; a coalition is worth the share of a query's label among its k nearest members
    (an empty place counts nothing), for real targets −(sum of their targets / k − target)². Neighbours are sought by
    Euclidean distance between the features on which the model's last step works (`embed`). What an example is worth to
    this game is not what the model would lose without it.

    Args:
        k: neighbours that vote.

    Whole sample weights are numbers of copies; other weights say nothing to a vote, where they are above 0.
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
        """Nothing of retraining the model: another predictor is valued."""
        return Promises(no_floor="the values are those of a nearest-neighbour vote, which is not the model")

    def fit(self, model: Any, train: Examples) -> FittedKNNShapley:
        """The features of the training set."""
        _labels(train, "the training set")
        return FittedKNNShapley(self, model, train, Unit.RANK)


class FittedKNNShapley(Fitted[KNNShapley, Embeddable]):
    """The features of the training set, ready to be compared with those of queries."""

    def __init__(self, recipe: KNNShapley, model: Embeddable, train: Examples, unit: Unit) -> None:
        super().__init__(recipe, model, train, unit)
        often = example_counts(sample_weights(train)).astype(np.intp)
        self._players = np.repeat(np.arange(len(train)), often)  # positions, one for every copy
        self._features = model.embed(train)
        squares = self._features.multiply(self._features) if is_sparse(self._features) else self._features**2
        self._size = float(squares.sum(axis=1).max()) or 1.0  # the squared length of the longest row of features

    def blocks(self, queries: Examples) -> Blocks:
        """All training examples at once; and how often the neighbours' vote is what the model predicts.

        Raises ValueError for queries without labels.
        """
        targets, features = _labels(queries, "the queries"), self.model.embed(queries)
        values, votes = np.zeros((len(queries), len(self.train))), list[Any]()
        for where in self._parts(len(queries)):
            order = self._nearest(features[where])
            values[where] = self._values(order, targets[where])
            votes += self._votes(order)
        yield slice(0, len(self.train)), values
        return self._faithfulness(votes, self.model.predict(queries).predicted)

    def self_values(self) -> Array:
        """Each example's value for itself, who is its own nearest neighbour."""
        targets, own = _labels(self.train, "the training set"), np.empty(len(self.train))
        for where in self._parts(len(own)):
            values = self._values(self._nearest(self._features[where]), targets[where])
            own[where] = np.diagonal(values[:, where])
        return own

    def _parts(self, queries: int) -> list[slice]:
        size = max(1, PAIRS // max(len(self._players), 1))
        return [slice(start, min(start + size, queries)) for start in range(0, queries, size)]

    def _nearest(self, features: Any) -> NDArray[np.intp]:
        """Positions of the players, nearest first, of equally far ones by their ids, (m, players)."""
        far = np.round(_distances(features, self._features)[:, self._players] / self._size, DIGITS)
        rank = np.argsort(np.argsort(self.train.ids))
        return self._players[np.lexsort((np.broadcast_to(rank[self._players], far.shape), far))]

    def _values(self, order: NDArray[np.intp], targets: NDArray[Any]) -> Array:
        """Shapley values of all training examples for these queries, (m, n)."""
        ranked = _labels(self.train, "the training set")[order]
        is_real, k = ranked.dtype.kind == "f", self.recipe.k
        found = (
            _regression(ranked, targets.astype(float), k) if is_real else _classification(ranked == targets[:, None], k)
        )
        values = np.zeros((len(targets), len(self.train)))
        np.add.at(values, (np.arange(len(targets))[:, None], order), found)
        return values

    def _votes(self, order: NDArray[np.intp]) -> list[Any]:
        """What the nearest neighbours say of every query, as readable labels; nothing where targets are real."""
        labels = _labels(self.train, "the training set")
        if labels.dtype.kind == "f":
            return []
        most = [Counter(row.tolist()).most_common(1)[0][0] for row in labels[order[:, : self.recipe.k]]]
        return [self.train.labels.get(label, label) for label in most]

    def _faithfulness(self, votes: list[Any], predicted: Sequence[Any]) -> AnswerFacts:
        if not votes:
            return AnswerFacts()
        share = float(np.mean([vote == said for vote, said in zip(votes, predicted, strict=True)]))
        facts: dict[str, Any] = {"faithful": share}
        if share < FAITHFUL:
            facts["warnings"] = [
                f"The {self.recipe.k} nearest neighbours say what the model says for {share:.0%} of the queries only: "
                "these values explain the neighbours' vote, not the model."
            ]
        return AnswerFacts(diagnostics=facts)


def _classification(same: NDArray[np.bool_], k: int) -> Array:
    """Values of examples in the order of their distance from whether their labels are the query's, both (m, n).

    Theorem 1: s_N = [y_N = y] min(k, N)/(kN), s_i = s_{i+1} + ([y_i = y] − [y_{i+1} = y]) min(k, i)/(ki).
    """
    n = same.shape[1]
    share = np.minimum(k, np.arange(1, n + 1)) / (k * np.arange(1, n + 1))
    steps = same.astype(np.float64)
    steps[:, :-1] -= same[:, 1:]
    return np.cumsum((steps * share)[:, ::-1], axis=1)[:, ::-1]


def _regression(targets: Array, target: Array, k: int) -> Array:
    """Values of examples in the order of their distance from their targets (m, n), for the targets of queries (m,).

    Theorem 2, with the worth −t² of nobody. With mᵢ = min(k, i) and B_l = min(k−1, l−2) min(k, l−1) / ((l−1)(l−2)):

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
    here, following = targets[:, :-1], targets[:, 1:]
    middle = m[:-1] / i[:-1] * ((here + following) / k - 2 * t + pairs[:, :-1]) + farther
    values[:, :-1] = (following - here) / k * middle
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
    """One label or target per example. Raises ValueError where there are none."""
    if examples.y is None or examples.y.ndim != 1:
        raise ValueError(f"expected {what} with one label per example, which a nearest-neighbour predictor votes with")
    return examples.y

"""The scores of one query at a time by one method: order, rank, and the strongest on both sides."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from upweight.core.scores import Scores

ROWS_KEPT = 8  # queries whose order is kept in memory
SHARED = 10  # strongest proponents and opponents in which two methods are compared


class Ranked:
    """Scores with the queries and training examples in the order of other scores.

    Raises ValueError for scores of other queries or other training examples.
    """

    def __init__(self, scores: Scores, like: Scores) -> None:
        self.scores = scores
        self._queries = _places(scores.query_ids, like.query_ids, "queries")
        same_order = np.array_equal(scores.train_ids, like.train_ids)
        self._train = None if same_order else _places(scores.train_ids, like.train_ids, "training examples")
        self.row = lru_cache(ROWS_KEPT)(self._row)
        self.order = lru_cache(ROWS_KEPT)(self._order)
        self.ranks = lru_cache(ROWS_KEPT)(self._ranks)

    def _row(self, query: int) -> NDArray[np.float64]:
        """All scores of the query at this place, (train,)."""
        row = np.array(self.scores.values[self._queries[query]])
        return row if self._train is None else row[self._train]

    def _order(self, query: int) -> NDArray[np.intp]:
        """The places of the training examples, strongest proponent first; scores that are not known come last."""
        return np.argsort(-self.row(query), kind="stable")

    def _ranks(self, query: int) -> NDArray[np.intp]:
        """The rank of every training example, 1 for the strongest proponent, (train,)."""
        ranks = np.empty(len(self.scores.train_ids), dtype=np.intp)
        ranks[self.order(query)] = np.arange(1, len(ranks) + 1)
        return ranks

    def strongest(self, query: int, k: int, sign: int = 1) -> list[int]:
        """The places of the k strongest proponents (sign 1) or opponents (sign −1), as `Scores` orders them."""
        row = sign * self.row(query)
        order = self.order(query)[:k] if sign > 0 else np.argsort(-row, kind="stable")[:k]
        return [place for place in order.tolist() if row[place] > 0]

    def column(self, place: int) -> NDArray[np.float64]:
        """The scores of the training example at this place for every query, (queries,)."""
        of_file = place if self._train is None else int(self._train[place])
        return np.array(self.scores.values[:, of_file])[self._queries]


def agreement(first: Ranked, second: Ranked, query: int) -> dict[str, float | int | None]:
    """Spearman's correlation over all training examples for one query, and how many of the ten strongest are shared."""
    rows = [side.row(query) for side in (first, second)]
    known = np.isfinite(rows[0]) & np.isfinite(rows[1])
    ranks = [rankdata(row[known]) for row in rows]
    varies = all(len(of) > 1 and np.ptp(of) > 0 for of in ranks)
    pro, opp = shared(first, second, query)
    return {"spearman": float(np.corrcoef(*ranks)[0, 1]) if varies else None, "proponents": pro, "opponents": opp}


def shared(first: Ranked, second: Ranked, query: int) -> tuple[int, int]:
    """How many of the ten strongest proponents, and of the ten strongest opponents, two methods have in common."""
    rows = [np.nan_to_num(side.row(query)) for side in (first, second)]
    counts = []
    for sign in (1, -1):
        tops = [np.argpartition(-sign * row, min(SHARED, len(row)) - 1)[:SHARED] for row in rows]
        positive = [top[sign * row[top] > 0] for row, top in zip(rows, tops, strict=True)]
        counts.append(len(np.intersect1d(positive[0], positive[1])))
    return counts[0], counts[1]


def _places(own: NDArray[np.generic], wanted: NDArray[np.generic], noun: str) -> NDArray[np.intp]:
    """Where each wanted id is among one's own. Raises ValueError if they are not the same ids."""
    place = {identifier: i for i, identifier in enumerate(own.tolist())}
    missing = [identifier for identifier in wanted.tolist() if identifier not in place]
    if missing or len(own) != len(wanted):
        example = f", e.g. without {missing[0]!r}" if missing else ""
        raise ValueError(
            f"expected the second scores to be of the same {len(wanted):,} {noun} as the first, got {len(own):,} "
            f"{noun}{example}; attribute the same queries with both methods"
        )
    return np.array([place[identifier] for identifier in wanted.tolist()], dtype=np.intp)

"""Counterfactual sets of a recommendation by ACCENT (Tran et al. 2021), FIA (Cheng et al. 2019) and pure FIA."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DAMPING = 1e-6
SIZES = (5, 10, 20)  # k: how long the list of recommendations is
METHODS = ("ACCENT", "FIA", "pure FIA")


class Chosen(NamedTuple):
    """Ratings to remove, as positions among those of the user, and the item that is predicted to come first then."""

    removed: tuple[int, ...]
    replacement: int


@dataclass(frozen=True)
class Case:
    """One recommendation: the list of items, and the influence of each rating of the user on the score of each item.

    Attributes:
        user: the user.
        items: the 20 best unrated items, best first.
        scores: their predicted ratings, (20,).
        influence: (20, ratings of the user): the score with the rating minus without it.
        mine: positions of the user's ratings in the training set.
        seconds: wall and processor seconds of all of this.
    """

    user: int
    items: NDArray[np.int64]
    scores: Array
    influence: Array
    mine: NDArray[np.intp]
    seconds: tuple[float, float]


class Recommender(ABC):
    """A recommender under explanation: its training set, its explanations, and its retraining without some ratings."""

    methods: ClassVar[tuple[str, ...]]
    rivals: ClassVar[tuple[str, ...]]  # the methods that ACCENT is claimed to be better than

    @abstractmethod
    def users(self) -> NDArray[np.int64]:
        """The users that may be chosen."""

    @abstractmethod
    def cases(self, users: NDArray[np.int64], seed: int) -> Sequence[Any]:
        """One case for every user, of the recommender that is trained with this seed."""

    @abstractmethod
    def chosen(self, case: Any, method: str, k: int) -> Chosen | None:
        """The set that a method finds among the first k items; None if it finds none."""

    @abstractmethod
    def retrained_scores(
        self, cases: Sequence[Any], removals: list[tuple[int, tuple[int, ...]]], seed: int
    ) -> list[Array]:
        """The scores of the 20 items of cases[c] after retraining without these ratings, for every (c, ratings)."""


def by_influence(case: Case, method: str, k: int) -> Chosen | None:
    """The set of ACCENT, FIA or pure FIA among the first k items; None if it finds none."""
    scores, influence = case.scores[:k], case.influence[:k]
    if method == "ACCENT":
        return _accent(scores, influence)
    order = np.argsort(-influence[0], kind="stable").tolist()
    return one_by_one(
        order,
        scores,
        lambda removed: scores - influence[:, removed].sum(axis=1),
        only_shrinking=method == "FIA",
    )


def _accent(scores: Array, influence: Array) -> Chosen | None:
    """For every other item the ratings that close its gap, most first; the smallest set, then the widest lead."""
    best: tuple[int, float, Chosen] | None = None
    for rival in range(1, len(scores)):
        effects = influence[0] - influence[rival]
        order = np.argsort(-effects, kind="stable")
        order = order[effects[order] > 0]
        gaps = scores[0] - scores[rival] - np.cumsum(effects[order])
        closed = np.flatnonzero(gaps < 0)
        if len(closed):
            size = int(closed[0]) + 1
            found = size, float(gaps[closed[0]]), Chosen(tuple(order[:size].tolist()), rival)
            best = found if best is None or found[:2] < best[:2] else best
    return None if best is None else best[2]


def one_by_one(
    order: Sequence[int], scores: Array, after: Callable[[list[int]], Array], only_shrinking: bool
) -> Chosen | None:
    """Removal of ratings in this order, until another item than the first is predicted to have the highest score.

    Args:
        order: the ratings, the first to be removed first.
        scores: of the items, the recommended one first.
        after: the predicted scores without these ratings.
        only_shrinking: put back ratings whose removal does not bring the best other item nearer.
    """
    gap, removed = scores[0] - scores[1:].max(), list[int]()
    for rating in order:
        predicted = after([*removed, rating])
        left = predicted[0] - predicted[1:].max()
        if only_shrinking and left >= gap:
            continue
        gap = left
        removed.append(rating)
        if gap < 0:
            return Chosen(tuple(removed), 1 + int(predicted[1:].argmax()))
    return None


def random_removals(case: Case, size: int, seed: int) -> tuple[int, ...]:
    """As many ratings of the user, chosen at random."""
    return tuple(np.random.default_rng([seed, case.user]).choice(len(case.mine), size, replace=False).tolist())

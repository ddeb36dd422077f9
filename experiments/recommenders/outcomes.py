"""What comes of counterfactual sets: each is retrained, and so are as many random ratings of the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
from experiments.recommenders.counterfactuals import SIZES, Case, Chosen, Recommender, random_removals
from numpy.typing import NDArray


class Outcome(NamedTuple):
    """One set after retraining.

    Attributes:
        user, seed, method, k: whose recommendation, by which training, and how the set was searched.
        size: ratings in the set; None if the method found none.
        holds: whether the item that was predicted to replace the recommended one is above it.
        displaced: whether any of the k items is.
    """

    user: int
    seed: int
    method: str
    k: int
    size: int | None
    holds: bool
    displaced: bool


@dataclass(frozen=True)
class Outcomes:
    """The outcomes, and what else is measured on the way.

    Attributes:
        sets: the outcomes of all sets.
        seconds: (wall, processor) of every explanation.
        changes: (predicted, retrained) changes of the gap between two items, for every set.
    """

    sets: list[Outcome] = field(default_factory=list)
    seconds: list[tuple[float, float]] = field(default_factory=list)
    changes: list[tuple[float, float]] = field(default_factory=list)

    def of(self, method: str, k: int) -> list[Outcome]:
        """The outcomes of one method and length, in the order of seeds and users."""
        return [outcome for outcome in self.sets if (outcome.method, outcome.k) == (method, k)]

    def __add__(self, other: Self) -> Outcomes:
        return Outcomes(self.sets + other.sets, self.seconds + other.seconds, self.changes + other.changes)


def outcomes_of(recommender: Recommender, users: NDArray[np.int64], seed: int) -> Outcomes:
    """The outcomes of all methods for these users, by the training with this seed."""
    cases = recommender.cases(users, seed)
    sets = {
        (c, method, k): recommender.chosen(case, method, k)
        for c, case in enumerate(cases)
        for method in recommender.methods
        for k in SIZES
    }
    controls = {
        (c, "random", k): Chosen(random_removals(cases[c], len(found.removed), seed), 0)
        for (c, method, k), found in sets.items()
        if found and (method, k) == ("ACCENT", 10)
    }
    asked = list(dict.fromkeys(_key(c, found) for (c, _, _), found in (sets | controls).items() if found))
    scores = dict(zip(asked, recommender.retrained_scores(cases, asked, seed), strict=True))
    result, changes = Outcomes(seconds=[case.seconds for case in cases]), {}
    for (c, method, k), found in (sets | controls).items():
        size, holds, displaced = None, False, False
        if found is not None:
            after, size = scores[_key(c, found)], len(found.removed)
            holds, displaced = bool(after[found.replacement] > after[0]), bool(after[1:k].max() > after[0])
            if method != "random":
                changes[_key(c, found), found.replacement] = _change(cases[c], found, after)
        result.sets.append(Outcome(cases[c].user, seed, method, k, size, holds, displaced))
    result.changes.extend(changes.values())
    return result


def _key(c: int, found: Chosen) -> tuple[int, tuple[int, ...]]:
    return c, tuple(sorted(found.removed))


def _change(case: Case, found: Chosen, after: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """(predicted, retrained) change of the gap between the recommended item and its replacement."""
    predicted = case.influence[0] - case.influence[found.replacement]
    before = case.scores[0] - case.scores[found.replacement]
    return float(predicted[list(found.removed)].sum()), float(before - (after[0] - after[found.replacement]))

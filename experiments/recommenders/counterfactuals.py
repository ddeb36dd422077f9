"""Counterfactual sets of a recommendation by ACCENT (Tran et al. 2021), FIA (Cheng et al. 2019) and pure FIA."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from experiments.recommenders import ncf
from numpy.typing import NDArray

import upweight as uw

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


def explain(model: uw.TorchModel, train: uw.Examples, user: int, curvature: object = None) -> Case:
    """The recommendation to one user and the influences on it, without retraining."""
    wall, cpu = time.perf_counter(), time.process_time()
    items = ncf.unrated(train, user)
    candidates = uw.Examples(np.stack([np.full(len(items), user), items], axis=1))
    scores = model.measure(candidates)
    best = np.argsort(-scores, kind="stable")[: max(SIZES)]
    recipe = uw.Influence(modules={"user_*": [user]}, damping=DAMPING, curvature=curvature)  # type: ignore[arg-type]
    values = recipe.fit(model, train).attribute(candidates.take(best)).values
    mine = np.flatnonzero(train.x[:, 0] == user)
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    return Case(user, items[best], scores[best], values[:, mine], mine, seconds)


def chosen(case: Case, method: str, k: int) -> Chosen | None:
    """The set that a method finds among the first k items; None if it finds none."""
    return {"ACCENT": _accent, "FIA": _fia, "pure FIA": _pure_fia}[method](case.scores[:k], case.influence[:k])


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


def _fia(scores: Array, influence: Array) -> Chosen | None:
    """By influence on the recommended item, but only ratings that bring it nearer to the best other item."""
    return _one_by_one(scores, influence, only_shrinking=True)


def _pure_fia(scores: Array, influence: Array) -> Chosen | None:
    """By influence on the recommended item alone."""
    return _one_by_one(scores, influence, only_shrinking=False)


def _one_by_one(scores: Array, influence: Array, only_shrinking: bool) -> Chosen | None:
    left, removed = scores.copy(), []
    for rating in np.argsort(-influence[0], kind="stable").tolist():
        after = left - influence[:, rating]
        if only_shrinking and after[0] - after[1:].max() >= left[0] - left[1:].max():
            continue
        left = after
        removed.append(rating)
        if left[1:].max() > left[0]:
            return Chosen(tuple(removed), 1 + int(left[1:].argmax()))
    return None


def random_removals(case: Case, size: int, seed: int) -> tuple[int, ...]:
    """As many ratings of the user, chosen at random."""
    return tuple(np.random.default_rng([seed, case.user]).choice(len(case.mine), size, replace=False).tolist())


def retrained_scores(
    train: uw.Examples, cases: list[Case], removals: list[tuple[int, tuple[int, ...]]], seed: int
) -> list[Array]:
    """The scores of the 20 items of cases[c] after retraining without these ratings, for every (c, ratings)."""
    nets = []
    for start in range(0, len(removals), ncf.TOGETHER):
        part = removals[start : start + ncf.TOGETHER]
        weights = np.ones((len(part), len(train)))
        for row, (c, removed) in zip(weights, part, strict=True):
            row[cases[c].mine[list(removed)]] = 0.0
        nets += ncf.train_nets(train, weights, seed)
    models = [uw.TorchModel(net, ncf.squared_error, ncf.rating) for net in nets]
    queries = [np.stack([np.full(len(cases[c].items), cases[c].user), cases[c].items], axis=1) for c, _ in removals]
    return [model.measure(uw.Examples(pairs)) for model, pairs in zip(models, queries, strict=True)]

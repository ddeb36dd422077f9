"""Removals: which training examples go together when the truth is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples, Id
from upweight.core.scores import Scores
from upweight.core.weights import weighted_positions

BLOCK = 64  # removals whose membership is held at a time
SIZES = (0.01, 0.05, 0.1)  # shares of the training set that random groups remove


@dataclass(frozen=True)
class Removal:
    """Training examples that were removed together."""

    name: str
    kind: Literal["one", "group"]
    ids: tuple[Id, ...]


def named_removals(removals: Mapping[str, Sequence[Id]]) -> list[Removal]:
    """Removals that the caller names. Raises ValueError for none, and for one without examples."""
    if not removals:
        raise ValueError("expected at least one removal, e.g. removals=16 or {'children': [17, 42]}")
    return [_removal(str(name), np.asarray(ids).tolist()) for name, ids in removals.items()]


def singles(train: Examples, ids: Sequence[Id] | None = None) -> list[Removal]:
    """One removal per training example of weight above 0, or per example of `ids`: the truth of leave-one-out."""
    wanted = train.ids[weighted_positions(train)].tolist() if ids is None else list(ids)
    return [Removal(str(i), "one", (i,)) for i in dict.fromkeys(wanted)]


def subsets(train: Examples, count: int = 100, share: float = 0.5, seed: int = 0) -> list[Removal]:
    """`count` uniform subsets that keep this share of the examples of weight above 0, as the removal of the rest.

    Half the data is TRAK's and SOURCE's choice, .99 that of MAGIC; the smaller the share kept, the further the truth
    is from anything first order.
    """
    if count < 1 or not 0 < share < 1:
        raise ValueError(f"expected at least one subset that keeps a share between 0 and 1, got {count} of {share}")
    ids = train.ids[weighted_positions(train)]
    n = len(ids)
    size = n - min(max(round(share * n), 1), n - 1)
    rng = np.random.default_rng(seed)
    drawn = [np.sort(rng.choice(n, size, replace=False)) for _ in range(count)]
    return [_removal(f"subset {i + 1}", ids[where].tolist()) for i, where in enumerate(drawn)]


def default_removals(scores: Scores, train: Examples, count: int, seed: int) -> list[Removal]:
    """Half the strongest examples of the queries in turn, half random groups of several sizes."""
    if count < 1:
        raise ValueError(f"expected at least one removal, got {count}")
    if not set(scores.train_ids.tolist()) <= set(train.ids.tolist()):
        raise ValueError("the scores' columns are no train ids; pass removals={name: ids} for scores of groups")
    counted = set(train.ids[weighted_positions(train)].tolist())
    columns = np.array([i in counted for i in scores.train_ids.tolist()])
    alone = min((count + 1) // 2, len(counted) - 1)
    strength = np.argsort(-np.abs(scores.values[:, columns]), axis=1, kind="stable")
    places = strength.T.ravel()[: 50 * alone * len(strength)]
    in_turn = list(dict.fromkeys(scores.train_ids[columns][places].tolist()))
    chosen = singles(train, in_turn[:alone])
    return chosen + random_groups(train, count - len(chosen), seed)


def random_groups(train: Examples, count: int, seed: int) -> list[Removal]:
    """Uniform groups of 1, 5 and 10 % of the training set in turn, of examples of weight above 0."""
    rng, there = np.random.default_rng(seed), train.ids[weighted_positions(train)]
    chosen = []
    for number in range(count):
        share = SIZES[number % len(SIZES)]
        size = min(max(2, round(share * len(there))), len(there) - 1)
        ids = tuple(there[np.sort(rng.choice(len(there), size, replace=False))].tolist())
        chosen.append(Removal(f"random {size} ({number + 1})", "group", ids))
    return chosen


def columns_of(scores: Scores, ids: tuple[Id, ...], name: str | None = None) -> NDArray[np.intp]:
    """Which columns predict this removal: those of its examples, or in scores of groups the one of its name."""
    place = {identifier: i for i, identifier in enumerate(scores.train_ids.tolist())}
    return _columns(place, ids, name)


def predicted_effects(scores: Scores, removals: Sequence[Removal]) -> NDArray[np.float64]:
    """Σ of scores over every removal's examples, shape (queries, removals)."""
    place = {identifier: i for i, identifier in enumerate(scores.train_ids.tolist())}
    sums = np.empty((len(scores.values), len(removals)))
    for start in range(0, len(removals), BLOCK):
        some = removals[start : start + BLOCK]
        member = np.zeros((len(place), len(some)))
        for column, one in enumerate(some):
            member[_columns(place, one.ids, one.name), column] = 1.0
        sums[:, start : start + BLOCK] = scores.values @ member
    return sums


def _columns(place: Mapping[Any, int], ids: tuple[Id, ...], name: str | None) -> NDArray[np.intp]:
    missing = next((i for i in ids if i not in place), None)
    if missing is None:
        return np.array([place[i] for i in dict.fromkeys(ids)], dtype=np.intp)
    if name not in place:
        raise ValueError(f"expected a score for every removed example, there is none for {missing!r}")
    return np.array([place[name]], dtype=np.intp)


def _removal(name: str, ids: Sequence[Id]) -> Removal:
    different = tuple(dict.fromkeys(ids))
    if not different:
        raise ValueError(f"expected at least one example in removal {name!r}, got none; leave it out or name some")
    return Removal(name, "one" if len(different) == 1 else "group", different)

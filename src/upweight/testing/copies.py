"""Copies: training sets that hold copies of a query, and sets with weights beside the same written out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.input_kinds import take_rows

if TYPE_CHECKING:
    from upweight.testing.family import Family

ABSENT, MORE = (0, 1, 2, 3, 20, 21, 22), {7: 3.0, 30: 2.0}  # positions of weight 0; position → weight


@dataclass(frozen=True)
class Weighted:
    """Examples with weights of 0, 1 and more, and the same written out: absent ones left out, a weight k as k copies.

    `origin`: for every written one, the position of the weighted one.
    """

    weighted: Examples
    written: Examples
    origin: NDArray[np.intp]


class Pair(NamedTuple):
    """A model of the weighted examples and one of the written-out ones."""

    weighted: Any
    written: Any


def with_weights(train: Examples) -> Weighted:
    """Some of these examples with a weight of 0, some with more than 1."""
    weights = np.ones(len(train))
    weights[[place for place in ABSENT if place < len(train)]] = 0.0
    for place, weight in MORE.items():
        weights[place % len(train)] = weight
    written, origin = written_out(train.replaced(weights=None), weights.astype(int))
    return Weighted(train.replaced(weights=weights), written, origin)


def written_out(train: Examples, copies: NDArray[np.int_]) -> tuple[Examples, NDArray[np.intp]]:
    """(so many copies of every example, with the weight that it has of its own; for each the example's position).

    Copies stand next to each other, in the order of their ids too.
    """
    origin = np.repeat(np.arange(len(train)), copies)
    copy = np.concatenate([np.arange(count) for count in copies])
    ids = train.ids[origin].tolist()
    further = np.flatnonzero(copy)
    names = [f"{ids[row]} copy {copy[row]}" for row in further]
    for row, identifier in zip(further, new_ids(train, names), strict=True):
        ids[row] = identifier
    y, weights = (None if part is None else part[origin] for part in (train.y, train.weights))
    shown = None if train.shown is None else [train.shown[place] for place in origin]
    return train.replaced(x=take_rows(train.x, origin), y=y, ids=ids, weights=weights, shown=shown), origin


def new_ids(examples: Examples, names: list[str]) -> list[Any]:
    """As many ids of the examples' own kind that none of them has: these names, or numbers."""
    if examples.ids.dtype.kind == "U":
        return names
    return [int(examples.ids.max()) + 1 + place for place in range(len(names))]


def with_copies(family: Family) -> tuple[Examples, Examples]:
    """(the training set and two more: a copy of one query, and one with another label; that query).

    The query is the one that the model measures worst. Its other label is the class that the model itself would take
    it for, or a number on the other side of what the model says.
    """
    train, queries, model = family.train, family.queries, family.trained
    hardest = queries.take([int(np.argmin(model.measure(queries)))])
    assert hardest.y is not None
    label = hardest.y[0]
    if family.is_regression:
        predicted = float(model.predict(hardest).predicted[0])
        other = max(label + 2 * (predicted - label), 0.1) if abs(predicted - label) > 0.3 else label + 1.0
    else:
        other = next(c for c in family.ranked_classes(model, hardest) if c != label)
    new = new_ids(train, ["copy", "flipped"])
    copy, flipped = hardest.replaced(ids=new[:1]), hardest.replaced(y=np.array([other]), ids=new[1:])
    return train.joined(copy).joined(flipped), hardest

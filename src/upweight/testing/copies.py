"""Copies of examples: a training set with copies of a query, and a weighted set with its expansion into copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.input_kinds import take_rows

ABSENT_POSITIONS = (0, 1, 2, 3, 20, 21, 22)  # training examples that get a weight of 0
REPEATED_WEIGHTS = {7: 3.0, 30: 2.0}  # position → weight above 1


@dataclass(frozen=True)
class WeightedExamples:
    """Examples with weights of 0, 1 and more, and the same set expanded: weight 0 is left out, weight k is k copies.

    Attributes:
        weighted: the examples with their weights.
        expanded: the same without weights, each example as often as its weight says.
        origin: for every expanded example, the position of the weighted one that it copies.
    """

    weighted: Examples
    expanded: Examples
    origin: NDArray[np.intp]


class WeightedModels(NamedTuple):
    """A model of the weighted examples, and a model of the expanded ones."""

    weighted: Any
    expanded: Any


def with_weights(train: Examples) -> WeightedExamples:
    """Give some of these examples a weight of 0, and some a weight above 1."""
    weights = np.ones(len(train))
    weights[[position for position in ABSENT_POSITIONS if position < len(train)]] = 0.0
    for position, weight in REPEATED_WEIGHTS.items():
        weights[position % len(train)] = weight
    expanded, origin = expand_weights(train.replaced(weights=None), weights.astype(int))
    return WeightedExamples(train.replaced(weights=weights), expanded, origin)


def expand_weights(train: Examples, counts: NDArray[np.int_]) -> tuple[Examples, NDArray[np.intp]]:
    """Repeat every example as often as its count says.

    Each copy has the weight that the example already had. Copies stand next to each other; so do their ids in sorted
    order.

    Returns:
        The repeated examples, and for each the position of the example that it copies.
    """
    origin = np.repeat(np.arange(len(train)), counts)
    copy_number = np.concatenate([np.arange(count) for count in counts])
    ids = train.ids[origin].tolist()
    further = np.flatnonzero(copy_number)
    names = [f"{ids[row]} copy {copy_number[row]}" for row in further]
    for row, identifier in zip(further, new_ids(train, names), strict=True):
        ids[row] = identifier
    y, weights = (None if part is None else part[origin] for part in (train.y, train.weights))
    shown = None if train.shown is None else [train.shown[position] for position in origin]
    return train.replaced(x=take_rows(train.x, origin), y=y, ids=ids, weights=weights, shown=shown), origin


def new_ids(examples: Examples, names: list[str]) -> list[Any]:
    """Return ids that none of the examples has: these names, or as many numbers if the ids are numbers."""
    if examples.ids.dtype.kind == "U":
        return names
    return [int(examples.ids.max()) + 1 + number for number in range(len(names))]


def with_copies(train: Examples, query: Examples, other_label: Any) -> Examples:
    """Append two examples to the training set: a copy of the query, and the query with another label."""
    new = new_ids(train, ["copy", "flipped"])
    copy, flipped = query.replaced(ids=new[:1]), query.replaced(y=np.array([other_label]), ids=new[1:])
    return train.joined(copy).joined(flipped)

"""Interpretable features of one query, in which its neighbours are described, and how neighbours are drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks

Array = NDArray[np.float64]
Positions = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Drawn:
    """Neighbours that were drawn.

    Attributes:
        rows: their interpretable features, (m, d).
        make: slice → the inputs of these neighbours, as the model takes them.
        max_inputs: how many inputs may be in memory at a time.
    """

    rows: Array
    make: Callable[[slice], Any]
    max_inputs: int = 10_000

    def inputs(self) -> Iterator[Any]:
        """All inputs, in blocks."""
        for block in blocks(len(self.rows), self.max_inputs):
            yield self.make(block)


class InterpretableFeatures(ABC):
    """Features in which a query is described: its own values, or 1 for each of its parts (words, superpixels).

    Attributes:
        names: of the features.
        width: of the kernel that turns distances into weights.
    """

    kind: ClassVar[Literal["table", "text", "picture"]]
    samples: ClassVar[int] = 5000  # neighbours by default
    names: tuple[str, ...]
    width: float

    @abstractmethod
    def random(self, count: int, rng: np.random.Generator) -> Drawn:
        """The query itself, then this many random neighbours, as in LIME."""

    @abstractmethod
    def mixed(self, sources: Positions, rng: np.random.Generator) -> Drawn:
        """One neighbour per training example: a random part of the query, and the rest from the training example.

        The size of the part is uniformly distributed; it may be none of the query.
        """

    @abstractmethod
    def of_training(self, positions: Positions) -> Drawn | None:
        """The training examples at these positions; None if these features do not describe them."""

    @abstractmethod
    def distances(self, rows: Array) -> Array:
        """Distances of these rows (m, d) to the query, (m,)."""

    def weights(self, rows: Array) -> Array:
        """√exp(−distance² / width²) of these rows (m, d), as in LIME: (m,)."""
        return np.exp(-0.5 * (self.distances(rows) / self.width) ** 2)


def cosine_distances(rows: Array) -> Array:
    """1 − cosine between rows of zeros and ones (m, d) and a row of ones, (m,); 1 for rows of zeros."""
    return np.asarray(1.0 - np.sqrt(rows.sum(axis=1) / rows.shape[1]))


def shown_parts(count: int, d: int, rng: np.random.Generator, least_hidden: int = 1) -> NDArray[np.bool_]:
    """Which of d features each of `count` neighbours keeps, (count, d).

    The number of hidden features is uniform from `least_hidden` to d, and which ones are hidden is random.
    """
    hidden = rng.integers(least_hidden, d + 1, count)
    ranks = rng.random((count, d)).argsort(axis=1).argsort(axis=1)
    return np.asarray(ranks >= hidden[:, None])

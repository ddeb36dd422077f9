"""Which of a user's films are related to an item, and by what: shared genres, directors and actors, or none of them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

import upweight as uw

HISTORY = 10  # the latest films that a user liked; earlier ones are left out
TYPES = ("nothing", "genre", "director", "actor")
Integers = NDArray[np.int64]


class Entries(NamedTuple):
    """One entry for each film of a user and each attribute that it shares with the item of a pair.

    Attributes:
        pair: position of the pair, ascending, (entries,).
        film: the user's film.
        member: position of the training triple by which the user has this film.
        type, value: which attribute is shared; a film that shares nothing has one entry of type 0 and value 0.
    """

    pair: Integers
    film: Integers
    member: Integers
    type: Integers
    value: Integers


@dataclass(frozen=True, eq=False)
class Relations:
    """The triples of training, and the attributes of the items.

    Attributes:
        train: triples (user, liked film, disliked film), (n, 3); of every user the liked films are the history.
        attributes: item → pairs (type from 1 to 3, value from 1 on; values differ between types).
        rated: user → all items that the user rated, also those that are too early for the history.
    """

    train: uw.Examples
    attributes: dict[int, frozenset[tuple[int, int]]]
    rated: dict[int, frozenset[int]]

    @cached_property
    def sizes(self) -> tuple[int, int, int]:
        """How many rows the tables of users, items and values need."""
        values = [value for shared in self.attributes.values() for _, value in shared]
        return int(self.train.x[:, 0].max()) + 1, int(max(self.attributes)) + 1, max(values, default=0) + 1

    def unrated(self, user: int) -> Integers:
        """The items of the training set that the user has not rated, ascending."""
        return np.setdiff1d(np.unique(self.train.x[:, 1:]), sorted(self.rated[user]))

    @cached_property
    def rows(self) -> dict[int, list[tuple[int, int]]]:
        """User → (training position, liked film) of the history."""
        rows: dict[int, list[tuple[int, int]]] = {}
        for position, (user, film, _) in enumerate(self.train.x.tolist()):
            rows.setdefault(user, []).append((position, film))
        return rows

    @cached_property
    def of_train(self) -> tuple[Entries, Integers, dict[tuple[int, int], int]]:
        """(entries of all pairs in training, first entry of every pair and the end, pair → its position)."""
        pairs = np.unique(np.concatenate([self.train.x[:, [0, 1]], self.train.x[:, [0, 2]]]), axis=0)
        entries = self._built(pairs)
        starts = np.searchsorted(entries.pair, np.arange(len(pairs) + 1))
        return entries, starts, {(user, item): place for place, (user, item) in enumerate(pairs.tolist())}

    def entries(self, pairs: Integers) -> Entries:
        """The entries of pairs (user, item), (b, 2); an item is not related to itself."""
        of_train, starts, places = self.of_train
        positions = np.array([places.get((user, item), -1) for user, item in pairs.tolist()], dtype=np.int64)
        if (positions < 0).any():
            return self._built(pairs)
        counts = starts[positions + 1] - starts[positions]
        pair = np.repeat(np.arange(len(pairs)), counts)
        taken = np.arange(len(pair)) - (np.cumsum(counts) - counts - starts[positions])[pair]
        return Entries(pair, *(part[taken] for part in of_train[1:]))

    def _built(self, pairs: Integers) -> Entries:
        entries: list[tuple[int, int, int, int, int]] = []
        for place, (user, item) in enumerate(pairs.tolist()):
            for position, film in self.rows.get(user, ()):
                if film != item:
                    shared = sorted(self.attributes[item] & self.attributes[film])
                    entries += [(place, film, position, kind, value) for kind, value in shared or [(0, 0)]]
        return Entries(*np.array(entries, dtype=np.int64).reshape(-1, 5).T)

    def __deepcopy__(self, _: object) -> Self:
        """The data itself, so that copies of a net share it."""
        return self


def movielens(data: Path, history: int = HISTORY) -> Relations:
    """MovieLens-100k: of every user the latest films rated 3 or more, each with one rated lower.

    The archive pairs every liked film with the disliked one that it shares most with, in the order of the ratings.
    """
    with zipfile.ZipFile(data / "movielens100k.zip") as archive:
        triples = np.loadtxt(io.BytesIO(archive.read("train.csv")), dtype=np.int64, delimiter=",", skiprows=1)
        lines = archive.read("auxiliary-mapping.txt").decode().split()
    of_users = [triples[triples[:, 0] == user] for user in np.unique(triples[:, 0])]
    rated = {int(own[0, 0]): frozenset(own[:, 1:].ravel().tolist()) for own in of_users}
    latest = np.concatenate([own[-history:] for own in of_users])
    ids = [f"{user}:{film}" for user, film, _ in latest.tolist()]
    train = uw.Examples(latest, ids=ids, names=["user", "liked", "disliked"])
    return Relations(train, attributes_of(lines), rated)


def attributes_of(lines: Sequence[str]) -> dict[int, frozenset[tuple[int, int]]]:
    """Item → its attributes, from lines `item|genres|directors|actors` with comma-separated numbers."""
    values: dict[tuple[int, str], int] = {}
    attributes = {}
    for line in lines:
        item, *columns = line.split("|")
        named = [(t, name) for t, column in enumerate(columns, 1) for name in column.split(",")]
        attributes[int(item)] = frozenset((t, values.setdefault((t, name), len(values) + 1)) for t, name in named)
    return attributes

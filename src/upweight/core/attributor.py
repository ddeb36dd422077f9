"""Attributor (a recipe) and Fitted (ready to answer): what every method is made of."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import as_plain, read_archive, write_archive
from upweight.core.examples import Examples, require_examples
from upweight.core.model import Measurable, TreeBased
from upweight.core.scores import Scores, Top, Unit, require_finite
from upweight.core.sources import is_sparse

TOGETHER = 256  # queries whose strongest examples are sought at a time


@dataclass(frozen=True)
class Promises:
    """What a method stands by: the law suite holds it to this on every model family.

    `correlation` is the least Pearson correlation with true leave-one-out, `slope` the band of actual on predicted;
    `waives` maps the name of a law to the reason why it cannot hold.
    """

    correlation: float | None = None
    slope: tuple[float, float] | None = None
    waives: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Attributor(ABC):
    """A recipe: a frozen dataclass that is at once constructor, settings and provenance."""

    @property
    @abstractmethod
    def promises(self) -> Promises:
        """What these settings stand by."""

    @abstractmethod
    def fit(self, model: Any, train: Examples) -> Fitted:
        """Do all the work that does not depend on the queries."""

    @abstractmethod
    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> Fitted:
        """The fitted form from what `Fitted.state` gave."""

    def load(self, path: str | Path, model: Any, train: Examples) -> Fitted:
        """Read what `Fitted.save` wrote. Raises ValueError when recipe, model or training set are not the same."""
        state, facts = read_archive(path, "fitted")
        here = {"recipe": self.described(), "fingerprint": fingerprint(model, train)}
        for name, value in here.items():
            if facts[name] != value:
                raise ValueError(
                    f"{path} was fitted with another {'model or training set' if name == 'fingerprint' else name} "
                    f"({facts[name]}, not {value}); fit again"
                )
        return self.restore(model, train, state, facts)

    def described(self) -> dict[str, Any]:
        """Name and settings as plain values."""
        described: dict[str, Any] = as_plain({"method": type(self).__name__, **_settings(self)})
        return described


class Fitted(ABC):
    """A method that has seen model and training set and can answer for any query."""

    def __init__(
        self, recipe: Attributor, model: Measurable, train: Examples, unit: Unit, handed_in: Measurable | None = None
    ) -> None:
        self.recipe = recipe
        self.model = model  # what is measured: the model handed in, or the same at the optimum of its training
        self.handed_in = model if handed_in is None else handed_in
        self.train = train
        self.unit = unit

    @abstractmethod
    def blocks(self, queries: Examples) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Scores of all queries for consecutive blocks of training examples: (which, (m, block))."""

    @abstractmethod
    def self_values(self) -> NDArray[np.float64]:
        """The score of every training example on itself, shape (n,)."""

    @property
    @abstractmethod
    def diagnostics(self) -> Mapping[str, Any]:
        """How far to trust the answers."""

    @abstractmethod
    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """What is worth keeping: arrays and facts from which `restore` makes the same answers."""

    def attribute(self, queries: Examples) -> Scores:
        """Scores [query, train] of these queries."""
        require_examples(queries, "the queries")
        measured = self.model.measure(queries)
        values = np.full((len(queries), len(self.train)), np.nan)  # a block that never comes is no score
        for where, block in self.blocks(queries):
            values[:, where] = block
        return self.scores(values, queries.ids, self.train.ids, measured, self.model.predict(queries))

    def self_influence(self) -> Scores:
        """One row, `self`: the score of every training example on itself; large = memorised or mislabeled."""
        return self.scores(self.self_values()[None, :], np.array(["self"]), self.train.ids, None, None)

    def top(self, queries: Examples, k: int = 10) -> Top:
        """The k strongest proponents and opponents of every query; never holds the full matrix."""
        if k < 1:
            raise ValueError(f"expected k of at least 1, got {k}")
        require_examples(queries, "the queries")
        found = [self._ends_of(some, k) for some in queries.batches(TOGETHER)]
        values, places = (np.vstack(parts) for parts in zip(*found, strict=True))
        return Top(queries.ids, self.train.ids[places], values, k, self.unit, self.diagnostics)

    def _ends_of(self, queries: Examples, k: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Values and places of both ends, (m, ≤ 2k), largest first, from blocks as they come."""
        m = len(queries)
        values, places = np.empty((m, 0)), np.empty((m, 0), dtype=np.intp)
        for where, block in self.blocks(queries):
            there = np.broadcast_to(np.arange(where.start, where.start + block.shape[1]), block.shape)
            values, places = np.hstack([values, require_finite(block)]), np.hstack([places, there])
            if values.shape[1] > 2 * k:
                kept = _ends(values, k)
                values, places = values[kept].reshape(m, 2 * k), places[kept].reshape(m, 2 * k)
        order = np.argsort(-values, axis=1, kind="stable")
        return np.take_along_axis(values, order, axis=1), np.take_along_axis(places, order, axis=1)

    def save(self, path: str | Path) -> None:
        """Keep the fit in one file; `recipe.load(path, model, train)` gives the same answers."""
        arrays, facts = self.state()
        facts = {"recipe": self.recipe.described(), "fingerprint": fingerprint(self.handed_in, self.train), **facts}
        write_archive(path, "fitted", arrays, facts)

    def scores(self, values: Any, query_ids: Any, train_ids: Any, measured: Any, predictions: Any) -> Scores:
        """Wrap values in the noun, with the unit and the news of this fit."""
        return Scores(
            values=values,
            query_ids=query_ids,
            train_ids=train_ids,
            unit=self.unit,
            measurement=self.model.measurement,
            recipe=self.recipe.described(),
            diagnostics=self.diagnostics,
            measured=measured,
            predictions=predictions,
        )

    def __repr__(self) -> str:
        return f"Fitted {type(self.recipe).__name__} on {len(self.train)} training examples ({self.unit})"

    def _repr_html_(self) -> str:
        import html

        rows = "".join(
            f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>"
            for k, v in self.diagnostics.items()
        )
        return f"<p><b>{html.escape(repr(self))}</b></p><table>{rows}</table>"


def fingerprint(model: Any, train: Examples) -> str:
    """A short name of the model's parameters and the training set, to notice when they are not the same."""
    digest = hashlib.blake2b(digest_size=12)
    chosen = model.trees().values if isinstance(model, TreeBased) else getattr(model, "parameters", None)
    for part in (chosen, train.ids, train.y, train.weights, *_parts(train.x)):
        array = np.ascontiguousarray(part if part is not None else [])
        in_words = array.dtype.kind in "OU"  # an object's bytes are an address, a text's are as wide as the longest
        digest.update(f"{'words' if in_words else array.dtype} {array.shape} ".encode())
        digest.update(repr(array.tolist()).encode() if in_words else array.tobytes())
    return digest.hexdigest()


def _parts(x: Any) -> Iterator[Any]:
    if is_sparse(x):
        csr = x.tocsr()
        yield from (csr.shape, csr.indptr.astype(np.int64), csr.indices.astype(np.int64), csr.data)
    elif isinstance(x, list | tuple):  # one by one: one array of all texts is as wide as the longest
        yield from x
    else:
        yield x


def _ends(values: NDArray[np.float64], k: int) -> NDArray[np.bool_]:
    """Where the k largest and k smallest of every row are; of equals the first, so that blocks make no difference."""
    high = _largest(values, k)
    return high | _largest(np.where(high, -np.inf, -values), k)


def _largest(values: NDArray[np.float64], k: int) -> NDArray[np.bool_]:
    least = -np.partition(-values, k - 1, axis=1)[:, k - 1, None]
    above, equal = values > least, values == least
    room = k - above.sum(axis=1, keepdims=True)
    largest: NDArray[np.bool_] = above | (equal & (np.cumsum(equal, axis=1) <= room))
    return largest


def _settings(recipe: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for item in (item for item in fields(recipe) if item.compare):  # what is not compared changes no answer
        value = getattr(recipe, item.name)
        is_recipe = is_dataclass(value) and not isinstance(value, type)
        settings[item.name] = {"kind": type(value).__name__, **_settings(value)} if is_recipe else value
    return settings

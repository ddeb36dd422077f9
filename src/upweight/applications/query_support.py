"""The support of queries: how near the training examples are, compared with what is usual among these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.capability_checks import can
from upweight.core.examples import Examples
from upweight.core.input_kinds import is_sparse
from upweight.core.model import Embeddable, Measurable

Array = NDArray[np.float64]
NEIGHBOURS = 10
SAMPLE = 2000  # training examples whose own distances show what is usual


@dataclass(frozen=True, eq=False)
class QuerySupport:
    """How near the training examples are to each query.

    Attributes:
        distance: (m,) mean distance to the ten nearest training examples in the features of the model, as a multiple
            of what is usual among training examples (their median).
        share: (m,) of the training examples that are at least as far from the others.
    """

    distance: Array
    share: Array


def support_of(model: Measurable, train: Examples, queries: Examples) -> QuerySupport | None:
    """The support of every query; None if the model has no features."""
    if not (isinstance(model, Embeddable) and can(model, Embeddable)):
        return None
    from sklearn.neighbors import NearestNeighbors

    known, asked = _scaled(model.embed(train), model.embed(queries))
    count = min(NEIGHBOURS, known.shape[0] - 1)
    nearest = NearestNeighbors(n_neighbors=count + 1).fit(known)
    rows = np.unique(np.linspace(0, known.shape[0] - 1, SAMPLE).astype(np.intp))
    usual = np.sort(nearest.kneighbors(known[rows])[0][:, 1:].mean(axis=1))
    distances = nearest.kneighbors(asked, n_neighbors=count)[0].mean(axis=1)
    shares = 1.0 - np.searchsorted(usual, distances, side="left") / len(usual)
    return QuerySupport(distances / max(float(np.median(usual)), 1e-300), shares)


def _scaled(train: Any, queries: Any) -> tuple[Any, Any]:
    """Both divided by the standard deviations of the training features; sparse features by their lengths."""
    if is_sparse(train):
        from sklearn.preprocessing import normalize

        return normalize(train), normalize(queries)
    train, queries = (np.asarray(part, dtype=np.float64).reshape(len(part), -1) for part in (train, queries))
    spread = train.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    return train / spread, queries / spread

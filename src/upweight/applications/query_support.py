"""The support of queries: how sparse the training examples are around them, compared with what is usual."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.core.capability_checks import can
from upweight.core.erasing import has_texts
from upweight.core.examples import Examples
from upweight.core.input_kinds import is_sparse
from upweight.core.model import Embeddable, Measurable

Array = NDArray[np.float64]
NEIGHBOURS = 10


@dataclass(frozen=True, eq=False)
class QuerySupport:
    """How sparse the training examples are around each query.

    Attributes:
        factor: (m,) local outlier factor in the features of the model: how much sparser than around the ten nearest
            training examples; about 1 is usual (Breunig et al. 2000). Of texts: the share of words that no training
            example has, divided by the usual share of words that no other one has; distances between bags of words
            say little, because texts of unknown words have hardly any features.
        share: (m,) of the training examples whose own factor is at least as large.
    """

    factor: Array
    share: Array


def support_of(model: Measurable, train: Examples, queries: Examples) -> QuerySupport | None:
    """The support of every query; None if the model has no features, or there are too few training examples."""
    if not (isinstance(model, Embeddable) and can(model, Embeddable)) or len(train) <= NEIGHBOURS:
        return None
    words = _unknown_words(list(train.x), list(queries.x)) if has_texts(train) and has_texts(queries) else None
    if words is not None:
        return _support(*words)
    from sklearn.neighbors import LocalOutlierFactor

    train_features, query_features = (
        part.tocsr() if is_sparse(part) else np.asarray(part, dtype=np.float64).reshape(part.shape[0], -1)
        for part in (model.embed(train), model.embed(queries))
    )
    fitted = LocalOutlierFactor(NEIGHBOURS, novelty=True).fit(train_features)
    return _support(-fitted.negative_outlier_factor_, -fitted.score_samples(query_features))


def _support(known: Array, factor: Array) -> QuerySupport:
    """From the factors of the training examples (n,) and of the queries (m,)."""
    usual = np.sort(known)
    shares = 1.0 - np.searchsorted(usual, factor, side="left") / len(usual)
    return QuerySupport(np.asarray(factor), shares)


def _unknown_words(train: list[str], queries: list[str]) -> tuple[Array, Array] | None:
    """How many of their words no other training example has, as a multiple of the usual share: (n,) and (m,).

    None if the usual share is 0, or there are no words.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    words = CountVectorizer(binary=True).build_analyzer()
    of_train, of_queries = ([set(words(text)) for text in texts] for texts in (train, queries))
    frequency = Counter(word for text in of_train for word in text)

    def shares(texts: list[set[str]], at_most: int) -> Array:
        return np.array([sum(frequency[w] <= at_most for w in text) / max(len(text), 1) for text in texts])

    train_shares, query_shares = shares(of_train, 1), shares(of_queries, 0)
    usual = float(train_shares.mean())
    return (train_shares / usual, query_shares / usual) if usual > 0 else None

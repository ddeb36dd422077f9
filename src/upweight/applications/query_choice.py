"""Which queries to explain if none are named: mistakes first, then the least confident predictions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import require_count
from upweight.core.examples import Examples, Id
from upweight.core.model import Measurable


def confident_mistakes(model: Measurable, queries: Examples, k: int = 8) -> list[Id]:
    """Ids of at most k queries that the model gets wrong, the most confident first.

    Confidence is the probability of the predicted class; without probabilities, a low measurement. For regression
    targets, the largest errors come first.

    Raises:
        ValueError: queries without labels.
    """
    require_count("k", k, least=0)
    if queries.y is None:
        raise ValueError(
            "the queries have no labels, so none of them can be called a mistake; "
            "pass Examples(x, y), or choose queries by id"
        )
    predictions = model.predict(queries)
    if None in predictions.predicted:  # no labels or numbers to compare with those of the queries
        return _largest(queries, -model.measure(queries), k)
    if not predictions.classes:
        errors = np.asarray(predictions.predicted, dtype=np.float64) - np.asarray(queries.y, dtype=np.float64)
        return _largest(queries, np.linalg.norm(errors.reshape(len(queries), -1), axis=1), k)
    labels = [queries.label(i) for i in queries.ids.tolist()]
    wrong = np.array([p != label for p, label in zip(predictions.predicted, labels, strict=True)])
    probabilities = predictions.probabilities
    confidence = -model.measure(queries) if probabilities is None else probabilities.max(axis=1)
    return _largest(queries, np.where(wrong, confidence, -np.inf), k)


def worth_explaining(model: Measurable, queries: Examples, k: int = 8) -> tuple[list[Id], str | None]:
    """The most confident mistakes. If there are none, the k least confident queries, and a note that says so."""
    require_count("k", k)
    mistakes = [] if queries.y is None else confident_mistakes(model, queries, k)
    if mistakes:
        return mistakes, None
    probabilities = model.predict(queries).probabilities
    doubt = -model.measure(queries) if probabilities is None else -probabilities.max(axis=1)
    why = "The queries have no labels" if queries.y is None else "The model gets every query right"
    return _largest(queries, doubt, k), f"{why}; these are the queries with the least confident predictions."


def mistakes_first(model: Measurable, queries: Examples, k: int) -> list[Id]:
    """Ids of at most k queries: the most confident mistakes, then the others, least confident predictions first."""
    require_count("k", k)
    mistakes = [] if queries.y is None else confident_mistakes(model, queries, len(queries))
    probabilities = model.predict(queries).probabilities
    doubt = -model.measure(queries) if probabilities is None else -probabilities.max(axis=1)
    others = _largest(queries, doubt, len(queries))
    return list(dict.fromkeys([*mistakes, *others, *queries.ids.tolist()]))[:k]


def _largest(queries: Examples, values: NDArray[np.float64], k: int) -> list[Id]:
    """Ids of the k queries with the largest finite values, largest first."""
    order = np.argsort(-values, kind="stable")[:k]
    return [queries.ids[i].item() for i in order if np.isfinite(values[i])]

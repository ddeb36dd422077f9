"""One small logistic regression with its influence scores, and effects measured by retraining it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import upweight as uw


class LogisticFit(NamedTuple):
    """A model with its data and the influence of the training examples on the queries."""

    model: uw.Retrainable
    train: uw.Examples
    queries: uw.Examples
    fitted: uw.Fitted[Any, Any]
    scores: uw.Scores


@cache
def logistic_fit(n: int = 120, columns: int = 5) -> LogisticFit:
    """A logistic regression on `n` training examples, with 12 queries."""
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[: n + 12]
    x, y = StandardScaler().fit_transform(x)[order, :columns], y[order]
    train = uw.Examples(x[12:], y[12:], ids=[f"t{i}" for i in range(n)])
    queries = uw.Examples(x[:12], y[:12], ids=[f"q{i}" for i in range(12)])
    model = uw.explainable(LogisticRegression(tol=1e-12, max_iter=10_000).fit(train.x, train.y), train)
    fitted = uw.Influence().fit(model, train)
    return LogisticFit(model, train, queries, fitted, fitted.attribute(queries))


def retraining_effect(
    model: uw.Retrainable, train: uw.Examples, queries: uw.Examples, ids: Sequence[str]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The measurement of the queries with the examples `ids` minus without them, from two trainings."""
    weights = np.ones(len(train))
    base = model.retrain(train, weights).measure(queries)
    weights[train.positions(ids)] = 0.0
    return base - model.retrain(train, weights).measure(queries)

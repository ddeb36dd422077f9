"""One small model with its scores, for the verification to be held against."""

from functools import cache

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import upweight as uw


@cache
def setting(n=120, columns=5):
    """(model, train, queries, fitted, scores)."""
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[: n + 12]
    x, y = StandardScaler().fit_transform(x)[order, :columns], y[order]
    train = uw.Examples(x[12:], y[12:], ids=[f"t{i}" for i in range(n)])
    queries = uw.Examples(x[:12], y[:12], ids=[f"q{i}" for i in range(12)])
    model = uw.explainable(LogisticRegression(tol=1e-12, max_iter=10_000).fit(train.x, train.y), train)
    fitted = uw.Influence().fit(model, train)
    return model, train, queries, fitted, fitted.attribute(queries)


def effect(model, train, queries, ids):
    """The measurement with these examples minus without them, by training twice."""
    weights = np.ones(len(train))
    base = model.retrain(train, weights).measure(queries)
    weights[train.positions(ids)] = 0.0
    return base - model.retrain(train, weights).measure(queries)

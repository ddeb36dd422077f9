"""Small fitted models and their objectives as dense matrices, for the methods to be held against."""

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge
from sklearn.preprocessing import StandardScaler

import upweight as uw

TIGHT = {"tol": 1e-12, "max_iter": 100_000}
KINDS = {
    "logistic": (LogisticRegression(C=0.5, **TIGHT), load_breast_cancer),
    "softmax": (LogisticRegression(**TIGHT), load_wine),
    "ridge": (Ridge(alpha=2.0), load_diabetes),
    "least_squares": (LinearRegression(), load_diabetes),
    "poisson": (PoissonRegressor(alpha=0.5, **TIGHT), load_diabetes),
}
QUERIES = 10


def small(kind, n=70, columns=4, measure=None, weighted=False):
    """(model, train, queries)."""
    estimator, load = KINDS[kind]
    x, y = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[: n + QUERIES]
    x, y = StandardScaler().fit_transform(x)[order, :columns], y[order]
    y = np.round(y / 50) if load is load_diabetes else y
    weights = np.random.default_rng(1).uniform(0.5, 2.0, n) if weighted else None
    train = uw.Examples(x[QUERIES:], y[QUERIES:], weights=weights, ids=[f"t{i}" for i in range(n)])
    estimator.fit(train.x, train.y, sample_weight=weights)
    queries = uw.Examples(x[:QUERIES], y[:QUERIES], ids=[f"q{i}" for i in range(QUERIES)])
    return uw.explainable(estimator, train, measure=measure), train, queries


def losses(model, theta, x, y):
    """Loss of every example at θ, written out."""
    wide = np.hstack([x, np.ones((len(x), 1))])
    name = model.name
    if name == "LogisticRegression" and len(model.family.classes) == 2:
        sign = np.where(y == model.family.classes[1], 1.0, -1.0)
        return np.logaddexp(0.0, -sign * (wide @ theta))
    if name == "LogisticRegression":
        z = np.hstack([wide @ theta.reshape(-1, wide.shape[1]).T, np.zeros((len(x), 1))])
        return np.logaddexp.reduce(z, axis=1) - z[np.arange(len(y)), np.searchsorted(model.family.classes, y)]
    z = wide @ theta
    if name == "PoissonRegressor":
        return np.where(y > 0, y * (np.log(np.where(y > 0, y, 1.0)) - z), 0.0) - y + np.exp(z)
    return 0.5 * (z - y) ** 2


def penalty(model, theta, total):
    """The regulariser of the summed objective; `total` is Σ of the weights."""
    wide = theta.reshape(model.theta.shape)[:, :-1]
    if wide.shape[0] > 1:
        wide = np.vstack([wide, np.zeros(wide.shape[1])])
        wide = wide - wide.mean(axis=0)
    l2 = model.objective.l2 * (total if model.objective.reduction == "mean" else 1.0)
    return 0.5 * l2 * (wide**2).sum()


def slope_of(f, at, step=1e-5):
    """Central differences, one column per entry."""
    return np.stack(
        [(f(at + h) - f(at - h)) / (2 * step) for h in step * np.eye(len(at))],
        axis=-1,
    )


def second_of(f, at, step=1e-3):
    """Second derivatives by central differences of central differences, with Richardson's correction."""

    def rough(h):
        return slope_of(lambda t: slope_of(f, t, h), at, h)

    return (4 * rough(step / 2) - rough(step)) / 3


def dense(model, train):
    """(gradients (n, p), H (p, p)) of the summed objective at the model's θ, by differences of the losses."""
    w = np.ones(len(train)) if train.weights is None else train.weights
    theta = model.parameters

    def rows(t):
        share = penalty(model, t, 1.0) if model.objective.reduction == "mean" else 0.0
        return w * (losses(model, t, train.x, train.y) + share)

    def whole(t):
        return w @ losses(model, t, train.x, train.y) + penalty(model, t, w.sum())

    return slope_of(rows, theta), second_of(whole, theta)

"""Small fitted models, and their objectives as dense matrices, with which the methods are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
Array = np.ndarray


def small(
    kind: str, n: int = 70, columns: int = 4, measure: Any = None, weighted: bool = False
) -> tuple[Any, uw.Examples, uw.Examples]:
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


def losses(model: Any, theta: Array, x: Array, y: Array) -> Array:
    """Loss of every example at θ, from the textbook formula."""
    with_intercept = np.hstack([x, np.ones((len(x), 1))])
    name = model.name
    if name == "LogisticRegression" and len(model.family.classes) == 2:
        sign = np.where(y == model.family.classes[1], 1.0, -1.0)
        return np.logaddexp(0.0, -sign * (with_intercept @ theta))
    if name == "LogisticRegression":
        z = np.hstack([with_intercept @ theta.reshape(-1, with_intercept.shape[1]).T, np.zeros((len(x), 1))])
        return np.logaddexp.reduce(z, axis=1) - z[np.arange(len(y)), np.searchsorted(model.family.classes, y)]
    z = with_intercept @ theta
    if name == "PoissonRegressor":
        return np.where(y > 0, y * (np.log(np.where(y > 0, y, 1.0)) - z), 0.0) - y + np.exp(z)
    return 0.5 * (z - y) ** 2


def penalty(model: Any, theta: Array, total: float) -> float:
    """The regulariser of the summed objective; `total` is Σ of the weights."""
    coefficients = theta.reshape(model.theta.shape)[:, :-1]
    if coefficients.shape[0] > 1:
        coefficients = np.vstack([coefficients, np.zeros(coefficients.shape[1])])
        coefficients = coefficients - coefficients.mean(axis=0)
    l2 = model.objective.l2 * (total if model.objective.reduction == "mean" else 1.0)
    return 0.5 * l2 * (coefficients**2).sum()


def slope_of(f: Callable[[Array], Any], at: Array, step: float = 1e-5) -> Array:
    """First derivatives by central differences, one column per parameter."""
    return np.stack(
        [(f(at + h) - f(at - h)) / (2 * step) for h in step * np.eye(len(at))],
        axis=-1,
    )


def second_of(f: Callable[[Array], Any], at: Array, step: float = 1e-3) -> Array:
    """Second derivatives by central differences of central differences, with Richardson's correction."""

    def uncorrected(h: float) -> Array:
        return slope_of(lambda t: slope_of(f, t, h), at, h)

    return (4 * uncorrected(step / 2) - uncorrected(step)) / 3


def dense(model: Any, train: uw.Examples) -> tuple[Array, Array]:
    """(gradients (n, p), H (p, p)) of the summed objective at the model's θ, by differences of the losses."""
    w = np.ones(len(train)) if train.weights is None else np.asarray(train.weights)
    y, theta = np.asarray(train.y), model.parameters

    def example_losses(t: Array) -> Array:
        share = penalty(model, t, 1.0) if model.objective.reduction == "mean" else 0.0
        return w * (losses(model, t, train.x, y) + share)

    def objective(t: Array) -> Any:
        return w @ losses(model, t, train.x, y) + penalty(model, t, w.sum())

    return slope_of(example_losses, theta), second_of(objective, theta)

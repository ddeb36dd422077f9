"""Least squares with dependent columns, or columns far from 0: effects are those of scikit-learn's own refits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor

import upweight as uw

Array = NDArray[np.float64]
N = 40
RNG = np.random.default_rng(1)
NOISE = RNG.normal(size=(N, 2))
ALONE = np.zeros((N, 1))
ALONE[0] = 1.0
LEVELS = np.eye(2)[RNG.integers(0, 2, N)]
LEVELS[0] = 0.0
PAIRS = np.zeros((N, 2))
PAIRS[0], PAIRS[1] = [1, 2], [1, 1]
DESIGNS = {
    "a dummy of one row": ALONE,
    "the same dummy twice": np.c_[ALONE, 3 * ALONE],
    "a dummy and its complement": np.c_[ALONE, 1 - ALONE],
    "all levels of a category with a rare one": np.c_[ALONE, LEVELS],
    "two rows that alone determine three columns": np.c_[PAIRS, PAIRS.sum(axis=1)],
    "three dependent columns of all rows": np.c_[NOISE @ [[1.0], [2.0]], NOISE @ [[1.0], [-1.0]]],
}


def half_squared_loss(estimator: Any, x: Array, y: Array) -> Array:
    return np.asarray(0.5 * (estimator.predict(x) - y) ** 2)


@pytest.mark.parametrize("name", DESIGNS)
def test_effects_through_dependent_columns_are_those_of_refits_for_queries_outside_the_span_too(name: str) -> None:
    rng = np.random.default_rng(2)
    x = np.c_[NOISE, DESIGNS[name]]
    y = x[:, 0] + 0.3 * rng.normal(size=N)
    y[0] += 5.0
    train = uw.Examples(x, y)
    queries = uw.Examples(rng.normal(size=(5, x.shape[1])), rng.normal(size=5), ids=range(50, 55))
    estimator = LinearRegression().fit(x, y)
    model: Any = uw.explainable(estimator, train)
    fitted = uw.Influence().fit(model, train)
    scores, self_influence = fitted.attribute(queries).values, fitted.self_influence().values[0]
    groups = fitted.remove({"few": [0, 5, 6]}, queries).values[:, 0]
    for removed, effect in ((([i]), scores[:, i]) for i in range(4)):
        without = LinearRegression().fit(np.delete(x, removed, axis=0), np.delete(y, removed))
        change = half_squared_loss(without, queries.x, queries.y) - half_squared_loss(estimator, queries.x, queries.y)
        np.testing.assert_allclose(effect, change, rtol=1e-5, atol=1e-6 * np.abs(change).max())
        itself = half_squared_loss(without, x, y) - half_squared_loss(estimator, x, y)
        assert self_influence[removed[0]] == pytest.approx(itself[removed[0]], rel=1e-5, abs=1e-8)
        weights = np.ones(N)
        weights[removed] = 0.0
        predicted = model.retrain(train, weights).predict(queries).predicted
        np.testing.assert_allclose(predicted, without.predict(queries.x), rtol=1e-6, atol=1e-6)
    without = LinearRegression().fit(np.delete(x, [0, 5, 6], axis=0), np.delete(y, [0, 5, 6]))
    change = half_squared_loss(without, queries.x, queries.y) - half_squared_loss(estimator, queries.x, queries.y)
    np.testing.assert_allclose(groups, change, rtol=1e-5, atol=1e-6 * np.abs(change).max())


@pytest.mark.parametrize("offset", [1e4, 1e7])
@pytest.mark.parametrize("kind", [LinearRegression, LogisticRegression, PoissonRegressor])
def test_a_column_far_from_zero_has_the_effects_coefficients_and_leverages_of_the_column_at_zero(
    kind: Any, offset: float
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 3))
    z = x[:, 0] + x[:, 1] + 0.5 * rng.normal(size=100)
    y = {"LinearRegression": z, "LogisticRegression": z > 0, "PoissonRegressor": np.round(np.exp(0.3 * z))}[
        kind.__name__
    ]
    settings = {} if kind is LinearRegression else {"solver": "newton-cholesky", "tol": 1e-10}
    near = kind(**settings).fit(x, y)
    far = kind(**settings).fit(x, y)  # the same coefficients, with the intercept that the offset asks for
    far.intercept_ = near.intercept_ - near.coef_.ravel()[1] * offset
    shifted = x + np.array([0.0, offset, 0.0])
    answers = []
    for estimator, columns in ((near, x), (far, shifted)):
        train = uw.Examples(columns, y.astype(int) if kind is not LinearRegression else y)
        model: Any = uw.explainable(estimator, train)
        fitted = uw.Influence().fit(model, train)
        scores = fitted.attribute(train.take(range(5)))
        assert not any("singular" in w or "optimum" in w or "missing" in w for w in scores.diagnostics["warnings"])
        answers.append((scores.values, fitted.leverage(), fitted.summary_frame()["dfb_x1"].to_numpy()))
        np.testing.assert_allclose(model.coefficients().values, estimator.coef_.reshape(1, -1), rtol=1e-6)
        np.testing.assert_allclose(model.coefficients().intercepts, np.ravel(estimator.intercept_), rtol=1e-6)
    for left, right in zip(*answers, strict=True):
        np.testing.assert_allclose(right, left, rtol=1e-5, atol=1e-6 * np.abs(left).max())


def test_the_intercept_of_a_column_far_from_zero_is_a_measurement_like_any_other() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)) + np.array([1e5, 0.0])
    y = x[:, 0] - 1e5 + rng.normal(size=60)
    train = uw.Examples(x, y)
    estimator = LinearRegression().fit(x, y)
    scores = (
        uw.Influence(polish=0).fit(uw.explainable(estimator, train, uw.Coefficient("intercept")), train).attribute()
    )
    without = LinearRegression().fit(x[1:], y[1:])
    assert scores.values[0, 0] == pytest.approx(estimator.intercept_ - without.intercept_, rel=1e-4)

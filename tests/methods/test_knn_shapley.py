"""KNN-Shapley against the definition: the mean marginal contribution over all orders of the players."""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Ridge

import upweight as uw
from upweight.methods.knn_shapley import KNNShapley


def classified(members: list[int], order: list[int], y: np.ndarray, target: Any, k: int) -> float:
    """The share of the query's label among the k nearest members."""
    nearest = [i for i in order if i in members][:k]
    return sum(y[i] == target for i in nearest) / k


def regressed(members: list[int], order: list[int], y: np.ndarray, target: float, k: int) -> float:
    """Minus the squared error of the sum of the k nearest targets over k."""
    nearest = [i for i in order if i in members][:k]
    return -((sum(y[i] for i in nearest) / k - target) ** 2)


def by_all_coalitions(x: np.ndarray, y: np.ndarray, query: np.ndarray, target: Any, k: int) -> np.ndarray:
    """Shapley values by all coalitions."""
    n = len(x)
    order = np.argsort(((x - query) ** 2).sum(axis=1), kind="stable").tolist()
    utility = regressed if y.dtype.kind == "f" else classified
    values = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            for members in combinations(others, size):
                gain = utility([*members, i], order, y, target, k) - utility(list(members), order, y, target, k)
                values[i] += gain / (n * comb(n - 1, size))
    return values


def model_of(x: np.ndarray, y: np.ndarray) -> Any:
    train = uw.Examples(x, y)
    estimator = Ridge() if y.dtype.kind == "f" else LogisticRegression()
    return uw.explainable(estimator.fit(x, y), train, objective=None), train


@given(n=st.integers(3, 9), k=st.integers(1, 11), real=st.booleans(), seed=st.integers(0, 999))
def test_it_is_the_shapley_value_of_the_definition(n: int, k: int, real: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, query = rng.normal(size=(n, 2)), rng.normal(size=(2, 2))
    y = rng.normal(size=n) if real else np.arange(n) % 2
    targets = rng.normal(size=2) if real else np.array([0, 1])

    class Plain(uw.core.model.Embeddable):  # the features themselves
        measurement = "nothing"

        def measure(self, queries: uw.Examples) -> np.ndarray:
            return np.zeros(len(queries))

        def predict(self, examples: uw.Examples) -> Any:
            return uw.core.model.Predictions(tuple(range(len(examples))))

        def embed(self, examples: uw.Examples) -> np.ndarray:
            return np.asarray(examples.x)

    scores = KNNShapley(k=k).fit(Plain(), uw.Examples(x, y)).attribute(uw.Examples(query, targets))
    expected = [by_all_coalitions(x, y, q, t, k) for q, t in zip(query, targets, strict=True)]
    np.testing.assert_allclose(scores.values, expected, rtol=0, atol=1e-12)


def test_values_add_up_to_the_utility_of_all_players() -> None:
    x, y = load_iris(return_X_y=True)
    model, train = model_of(x[::2], y[::2])
    queries = uw.Examples(x[1::7], y[1::7], ids=[f"q{i}" for i in range(len(y[1::7]))])
    scores = uw.KNNShapley(k=3).fit(model, train).attribute(queries)
    order = np.argsort(((train.x[None] - queries.x[:, None]) ** 2).sum(axis=2), axis=1, kind="stable")[:, :3]
    votes = (train.y[order] == queries.y[:, None]).mean(axis=1)
    np.testing.assert_allclose(scores.values.sum(axis=1), votes, atol=1e-12)
    assert scores.unit == uw.Unit.RANK and not scores.diagnostics["warnings"]
    predicted = np.array(model.predict(queries).predicted)
    agrees = np.mean((train.y[order] == predicted[:, None]).sum(axis=1) >= 2)
    assert scores.diagnostics["faithful"] == pytest.approx(agrees)


def test_neighbours_that_disagree_with_the_model_give_a_warning() -> None:
    rng = np.random.default_rng(0)
    x = np.c_[rng.normal(size=200), 30 * rng.normal(size=(200, 6))]  # one feature decides, six others are far apart
    y = (x[:, 0] > 0).astype(int)
    model, train = model_of(x[:150], y[:150])
    queries = uw.Examples(x[150:], y[150:], ids=np.arange(150, 200))
    scores = uw.KNNShapley().fit(model, train).attribute(queries)
    assert scores.diagnostics["faithful"] < 0.8 and "explain the neighbours' vote" in scores.diagnostics["warnings"][-1]


def test_weights_are_copies() -> None:
    x, y = load_iris(return_X_y=True)
    x, y = x[::5] + 1e-3 * np.arange(30)[:, None], y[::5]
    weights = np.arange(30) % 4
    model, _ = model_of(x, y)
    queries = uw.Examples(x[:4] + 0.01, y[:4], ids=list("abcd"))
    weighted = uw.KNNShapley().fit(model, uw.Examples(x, y, weights=weights)).attribute(queries).values
    where = np.repeat(np.arange(30), weights)
    written = uw.KNNShapley().fit(model, uw.Examples(x[where], y[where])).attribute(queries).values
    sums = np.stack([written[:, where == i].sum(axis=1) for i in range(30)], axis=1)
    np.testing.assert_allclose(weighted, sums, atol=1e-12)
    assert not weighted[:, weights == 0].any()
    halves = uw.KNNShapley().fit(model, uw.Examples(x, y, weights=weights / 2)).attribute(queries).values
    once = uw.KNNShapley().fit(model, uw.Examples(x, y, weights=np.minimum(weights, 1))).attribute(queries).values
    assert np.array_equal(halves, once)  # how much a loss counts is nothing to a vote


def test_queries_without_labels_and_wrong_settings_are_refused() -> None:
    x, y = load_iris(return_X_y=True)
    model, train = model_of(x, y)
    with pytest.raises(ValueError, match="queries have no labels"):
        uw.KNNShapley().fit(model, train).attribute(uw.Examples(x[:2]))
    with pytest.raises(ValueError, match="expected k ≥ 1"):
        uw.KNNShapley(k=0)
    with pytest.raises(TypeError, match="KNNShapley needs a model that is Embeddable"):
        uw.KNNShapley().fit(object(), train)

"""Influence on wide sparse features: the same answers as with a dense factor, and as real refits."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

import upweight as uw
from upweight.linear import column_elimination, solver_choice, sparse_cholesky

N, COLUMNS, NEW, LENGTH = 700, 500, 5, 5


def texts(classes, seed=0):
    """Rows of five words, of which few are frequent, and their classes."""
    rng = np.random.default_rng(seed)
    frequency = 1.0 / np.arange(1, COLUMNS + 1)
    columns = np.stack(
        [rng.choice(COLUMNS, LENGTH, replace=False, p=frequency / frequency.sum()) for _ in range(N + NEW)]
    )
    values = rng.uniform(0.2, 1.0, columns.shape)
    x = sparse.csr_matrix((values.ravel(), columns.ravel(), np.arange(0, columns.size + 1, LENGTH)), (N + NEW, COLUMNS))
    outputs = x @ rng.standard_normal((COLUMNS, classes)) * 3 + rng.gumbel(size=(N + NEW, classes))
    return x, outputs.argmax(axis=1)


@pytest.fixture(scope="module", params=[2, 3])
def data(request):
    x, y = texts(request.param)
    weights = np.ones(N)
    weights[::10], weights[1::10] = 0.0, 3.0
    model = LogisticRegression(tol=1e-10, max_iter=10_000).fit(x[:N], y[:N], sample_weight=weights)
    train = uw.Examples(x[:N], y[:N], weights=weights)
    return model, train, uw.Examples(x[N:], y[N:], ids=[f"q{i}" for i in range(NEW)])


@pytest.fixture(autouse=True)
def small_is_enough(monkeypatch):
    """Eliminate although the tables of tests are small."""
    monkeypatch.setattr(column_elimination, "NUMBER_COST", 30.0)
    monkeypatch.setattr(sparse_cholesky, "MIN_PARAMETERS", 100)


def answers(model, train, queries):
    explainable = uw.explainable(model, train)
    fitted = uw.Influence().fit(explainable, train)
    group, remaining = {"thirty": train.ids[5:35].tolist()}, np.ones(N)
    remaining[5:35] = 0.0
    return {
        "solver": fitted.diagnostics["solver"],
        "scores": fitted.attribute(queries).values,
        "own": fitted.self_influence().values,
        "group": fitted.remove(group, queries).values,
        "leverage": fitted.curvature.leverage(),
        "retrained": explainable.retrain(train, np.isin(np.arange(N), np.arange(5, 35), invert=True) * 1.0).measure(
            queries
        ),
    }


def test_answers_are_those_of_a_dense_factor(data, monkeypatch):
    eliminated = answers(*data)
    monkeypatch.setattr(solver_choice, "is_eliminable", lambda problem: False)
    dense = answers(*data)
    assert "rare columns" in eliminated.pop("solver") and "rare columns" not in dense.pop("solver")
    for name, values in dense.items():
        np.testing.assert_allclose(eliminated[name], values, rtol=1e-6, atol=1e-9, err_msg=name)


def test_a_group_is_what_a_refit_without_it_says(data):
    model, train, queries = data
    weights = train.weights.copy()
    weights[5:35] = 0.0
    refit = LogisticRegression(tol=1e-12, max_iter=10_000).fit(train.x, train.y, sample_weight=weights)
    places = np.searchsorted(model.classes_, queries.y)

    def measured(estimator):
        return np.log(estimator.predict_proba(queries.x)[np.arange(NEW), places])

    effect = answers(*data)["group"][:, 0]
    np.testing.assert_allclose(effect, measured(model) - measured(refit), rtol=1e-3, atol=1e-5)

"""MLPClassifier and MLPRegressor are explained as networks with their weights, and retrained by scikit-learn."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import upweight as uw
from support.scikit_learn_versions import PERCEPTRON_TAKES_WEIGHTS
from upweight.evaluate.agreement import agreement
from upweight.models.pytorch import layered_perceptrons

pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
N, M = 50, 6
SMALL = {"hidden_layer_sizes": (4,), "random_state": 0}
SMOOTH = {**SMALL, "solver": "lbfgs", "activation": "tanh", "tol": 1e-10, "max_iter": 5000}
NAMES = np.array(["rome", "athens", "thebes"])


def rows(load: Any) -> tuple[Any, Any]:
    x, y = load(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(y))[: N + M]
    return StandardScaler().fit_transform(x[order][:, :5]), y[order]


CASES = {
    "two classes": (MLPClassifier(**SMALL, max_iter=20), *rows(load_breast_cancer)),
    "three classes": (MLPClassifier(**SMALL, max_iter=20, activation="logistic"), *rows(load_wine)),
    "names of classes": (MLPClassifier(**SMALL, activation="identity"), rows(load_wine)[0], NAMES[rows(load_wine)[1]]),
    "numbers": (MLPRegressor(**SMALL, max_iter=20, activation="tanh"), *rows(load_diabetes)),
    "two targets": (
        MLPRegressor(**SMALL, solver="lbfgs"),
        rows(load_diabetes)[0],
        np.c_[rows(load_diabetes)[1] / 100, rows(load_diabetes)[0][:, 0]],
    ),
}


def loss(estimator: Any, x: Any, y: Any) -> np.ndarray:
    if not hasattr(estimator, "classes_"):
        return 0.5 * ((estimator.predict(x) - y) ** 2).reshape(len(y), -1).sum(axis=1)
    positions = np.searchsorted(estimator.classes_, y)
    return -np.take_along_axis(estimator.predict_log_proba(x), positions[:, None], axis=1)[:, 0]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", CASES)
def test_the_network_measures_what_the_perceptron_does_and_is_retrained_like_it(name: str) -> None:
    estimator, x, y = CASES[name]
    fitted = make_pipeline(StandardScaler(), clone(estimator)).fit(x[:N], y[:N])
    train, queries = uw.Examples(x[:N], y[:N]), uw.Examples(x[N:], y[N:])
    model = uw.explainable(fitted, train)
    steps, final = fitted[:-1], fitted[-1]
    np.testing.assert_allclose(model.measure(queries), -loss(final, steps.transform(x[N:]), y[N:]), rtol=1e-9)
    predicted = np.array(model.predict(queries).predicted)
    np.testing.assert_allclose(predicted, fitted.predict(x[N:])) if y.dtype.kind == "f" else None
    assert y.dtype.kind == "f" or predicted.tolist() == fitted.predict(x[N:]).tolist()
    for removed in ([], [3, 8]):
        remaining = ~np.isin(np.arange(N), removed)
        refit = clone(final).fit(steps.transform(x[:N])[remaining], y[:N][remaining])
        again = model.retrain(train, remaining.astype(float))
        np.testing.assert_allclose(again.measure(queries), -loss(refit, steps.transform(x[N:]), y[N:]), rtol=1e-6)


@pytest.mark.skipif(not PERCEPTRON_TAKES_WEIGHTS, reason="this scikit-learn trains perceptrons without weights")
def test_scores_of_a_smooth_perceptron_agree_with_refits_and_weights_count() -> None:
    x, y = rows(load_diabetes)
    y, weights = y / 100, 1.0 + np.arange(N) % 2
    estimator = MLPRegressor(**SMOOTH, alpha=10.0)
    train, queries = uw.Examples(x[:N], y[:N], weights=weights), uw.Examples(x[N:], y[N:])
    fitted = clone(estimator).fit(x[:N], y[:N], sample_weight=weights)
    model = uw.explainable(fitted, train)
    scores = uw.Influence().fit(model, train).attribute(queries).values
    removed = list(range(0, N, 5))
    actual = []
    for i in removed:
        remaining = np.arange(N) != i
        refit = clone(estimator).fit(x[:N][remaining], y[:N][remaining], sample_weight=weights[remaining])
        actual.append(loss(refit, x[N:], y[N:]) - loss(fitted, x[N:], y[N:]))
    assert agreement(scores[:, removed], np.stack(actual, axis=1)).pearson > 0.9
    assert model.gradient_norm(train) < 1e-3


@pytest.mark.parametrize(("name", "unit"), [("two classes", uw.Unit.EFFECT), ("three classes", uw.Unit.RANK)])
def test_a_penalty_that_training_does_not_have_leaves_a_ranking_where_it_pulls(name: str, unit: uw.Unit) -> None:
    _, x, y = CASES[name]
    train = uw.Examples(x[:N], y[:N])
    fitted = MLPClassifier(**SMOOTH, alpha=3.0).fit(train.x, train.y)
    model = uw.explainable(fitted, train)
    recipe = uw.Influence(curvature=uw.Hessian(), correction=None)
    assert model.gradient_norm(train) < 0.01
    assert recipe.fit(model, train).attribute(uw.Examples(x[N:], y[N:])).unit == unit


def test_margins_and_probabilities_are_measured_and_labels_keep_their_names() -> None:
    estimator, x, y = CASES["names of classes"]
    train, queries = uw.Examples(x[:N], y[:N]), uw.Examples(x[N:], y[N:])
    fitted = clone(estimator).fit(x[:N], y[:N])
    p = fitted.predict_proba(x[N:])
    rome = uw.explainable(fitted, train, measure=uw.Probability(of="rome")).measure(queries)
    np.testing.assert_allclose(rome, p[:, fitted.classes_.tolist().index("rome")], rtol=1e-9)
    own = np.take_along_axis(p, np.searchsorted(fitted.classes_, y[N:])[:, None], axis=1)[:, 0]
    margin = uw.explainable(fitted, train, measure=uw.Margin()).measure(queries)
    np.testing.assert_allclose(margin, np.log(own / (1 - own)), rtol=1e-6)


def test_what_a_network_cannot_follow_is_refitted_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator, x, y = CASES["two classes"]
    train = uw.Examples(x[:N], y[:N])
    stopped = clone(estimator).set_params(early_stopping=True).fit(x[:N], y[:N])
    assert any("early_stopping=True trains without" in note for note in uw.explainable(stopped, train).notes)
    monkeypatch.setattr(layered_perceptrons, "find_spec", lambda _: None)
    model = uw.explainable(clone(estimator).fit(x[:N], y[:N]), train)
    assert "PyTorch, which is not installed" in model.notes[0]
    assert isinstance(model, uw.Refittable)


def test_other_training_data_and_perceptrons_without_a_seed() -> None:
    estimator, x, y = CASES["two classes"]
    train = uw.Examples(x[:N], y[:N])
    with pytest.raises(ValueError, match="its solver counted 40 in every epoch"):
        uw.explainable(clone(estimator).fit(x[:40], y[:40]), train)
    unseeded = uw.explainable(clone(estimator).set_params(random_state=None).fit(x[:N], y[:N]), train)
    assert "fitted without a seed" in unseeded.notes[1]
    assert "training" in unseeded.lacks(uw.Retrainable)

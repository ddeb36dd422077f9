"""Learners of one example after the other: scores are what the same training gives if it skips the example."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.linear_model import (
    PassiveAggressiveClassifier,
    PassiveAggressiveRegressor,
    Perceptron,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.preprocessing import StandardScaler

import upweight as uw
from support.scikit_learn_versions import PASSIVE_AGGRESSIVE_TAKES_WEIGHTS

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
N, M = 40, 6
IN_ORDER = {"shuffle": False, "tol": None, "max_iter": 4}


def rows(load: Any) -> tuple[Any, Any]:
    x, y = load(return_X_y=True)
    order = np.random.default_rng(4).permutation(len(y))[: N + M]
    return StandardScaler().fit_transform(x[order])[:, :5], y[order]


def first(outputs: Any, labels: Any) -> Any:
    return outputs[:, 0]


def effects(estimator: Any, x: Any, y: Any, weights: Any = None) -> np.ndarray:
    train, queries = uw.Examples(x[:N], y[:N], weights=weights), uw.Examples(x[N:], y[N:])
    fitted = clone(estimator).fit(x[:N], y[:N], **({} if weights is None else {"sample_weight": weights}))
    return uw.LeaveOneOut().fit(uw.explainable(fitted, train, measure=first), train).attribute(queries).values


def perceptron(x: Any, y: Any, queries: Any, skipped: int) -> np.ndarray:
    """Rosenblatt's rule in plain numpy: (m,) outputs."""
    w, b = np.zeros(x.shape[1]), 0.0
    for _ in range(IN_ORDER["max_iter"]):
        for i, sign in enumerate(np.where(y == 1, 1.0, -1.0)):
            if i != skipped and sign * (x[i] @ w + b) <= 0:
                w, b = w + sign * x[i], b + sign
    return np.asarray(queries @ w + b)


def test_scores_of_a_perceptron_equal_those_of_the_rule_itself_without_the_example() -> None:
    x, y = rows(load_breast_cancer)
    base = perceptron(x[:N], y[:N], x[N:], -1)
    actual = np.stack([base - perceptron(x[:N], y[:N], x[N:], i) for i in range(N)], axis=1)
    np.testing.assert_allclose(effects(Perceptron(**IN_ORDER), x, y), actual, atol=1e-9)


def shuffled(order: list[int], seed: int) -> list[int]:
    """Scikit-learn's order of the next epoch: Fisher and Yates with a xorshift generator of 32 bits."""
    for i in range(len(order) - 1):
        seed ^= seed << 13 & 0xFFFFFFFF
        seed ^= seed >> 17
        seed ^= seed << 5 & 0xFFFFFFFF
        j = i + seed % 2**31 % (len(order) - i)
        order[i], order[j] = order[j], order[i]
    return order


def passive_aggressive(estimator: Any, x: Any, y: Any, queries: Any, skipped: int) -> np.ndarray:
    """PA-I and PA-II of Crammer et al. (2006) in plain numpy: (m,) outputs. A skipped example is passed over."""
    w, b, order = np.zeros(x.shape[1]), 0.0, list(range(len(x)))
    signs = np.where(y == 1, 1.0, -1.0) if isinstance(estimator, PassiveAggressiveClassifier) else None
    rng = np.random.RandomState(estimator.random_state)
    if signs is not None:  # scikit-learn's classifiers draw a seed that they do not use
        rng.randint(1, np.iinfo(np.int32).max)
    seed = int(rng.randint(np.iinfo(np.int32).max))
    for _ in range(estimator.max_iter):
        for i in shuffled(order, seed) if estimator.shuffle else order:
            output, squared = x[i] @ w + b, x[i] @ x[i]
            if signs is not None:
                direction, loss = signs[i], max(1 - signs[i] * output, 0.0)
            else:
                direction, loss = np.sign(y[i] - output), max(abs(y[i] - output) - estimator.epsilon, 0.0)
            is_squared = estimator.loss.startswith("squared")
            step = loss / (squared + 0.5 / estimator.C) if is_squared else min(estimator.C, loss / squared)
            if i != skipped:
                w, b = w + direction * step * x[i], b + direction * step * estimator.fit_intercept
    return np.asarray(queries @ w + b)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "none"])
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", "epsilon_insensitive", "squared_epsilon_insensitive"])
def test_scores_of_passive_aggressive_learners_equal_those_of_their_rule_without_the_example(
    loss: str, intercept: bool, shuffle: bool
) -> None:
    if shuffle and not PASSIVE_AGGRESSIVE_TAKES_WEIGHTS:
        pytest.skip("without weights, an example is taken out before the order is drawn")
    is_classifier = loss.endswith("hinge")
    x, y = rows(load_breast_cancer if is_classifier else load_diabetes)
    y = y if is_classifier else y / 100
    kind = PassiveAggressiveClassifier if is_classifier else PassiveAggressiveRegressor
    settings = {**IN_ORDER, "shuffle": shuffle, "fit_intercept": intercept, "random_state": 5}
    estimator = kind(C=0.2, loss=loss, **settings)
    base = passive_aggressive(estimator, x[:N], y[:N], x[N:], -1)
    actual = np.stack([base - passive_aggressive(estimator, x[:N], y[:N], x[N:], i) for i in range(N)], axis=1)
    assert np.abs(actual).max() > 0.01
    np.testing.assert_allclose(effects(estimator, x, y), actual, atol=1e-9)


def test_a_passive_aggressive_learner_is_trained_again_with_the_strength_that_it_used() -> None:
    x, y = rows(load_wine)
    train, queries = uw.Examples(x[:N], y[:N]), uw.Examples(x[N:], y[N:])
    estimator = PassiveAggressiveClassifier(random_state=0).set_params(C=0.05).fit(x[:N], y[:N])
    model = uw.explainable(estimator, train, measure=first)
    np.testing.assert_allclose(model.measure(queries), estimator.decision_function(x[N:])[:, 0])
    is_followed = PASSIVE_AGGRESSIVE_TAKES_WEIGHTS and estimator.eta0 != estimator.C
    assert ("trained with C=1, not 0.05" in " ".join(model.notes)) == is_followed


SEEDED = {
    "perceptron of three classes": (Perceptron(), load_wine),
    "perceptron with a penalty": (Perceptron(penalty="elasticnet"), load_breast_cancer),
    "hinge": (SGDClassifier(random_state=3), load_wine),
    "elastic net": (SGDClassifier(loss="log_loss", penalty="elasticnet", random_state=3), load_breast_cancer),
    "squared": (SGDRegressor(random_state=3), load_diabetes),
    "averaged": (SGDRegressor(loss="huber", average=True, random_state=3), load_diabetes),
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name", SEEDED)
def test_scores_equal_fits_in_which_the_example_has_weight_0(name: str, weighted: bool) -> None:
    estimator, load = SEEDED[name]
    x, y = rows(load)
    weights = 1.0 + np.arange(N) % 3 if weighted else np.ones(N)

    def outputs(total: Any) -> np.ndarray:
        fitted = clone(estimator).fit(x[:N], y[:N], sample_weight=total)
        decide = fitted.decision_function if hasattr(fitted, "classes_") else fitted.predict
        return np.asarray(decide(x[N:])).reshape(M, -1)[:, 0]

    scores = effects(estimator, x, y, weights if weighted else None)
    for i in range(0, N, 9):
        without = outputs(np.where(np.arange(N) == i, 0.0, weights))
        np.testing.assert_allclose(scores[:, i], outputs(weights) - without, atol=1e-9 * np.abs(scores).max())


@pytest.mark.skipif(not PASSIVE_AGGRESSIVE_TAKES_WEIGHTS, reason="this scikit-learn trains them without weights")
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_passive_aggressive_classifiers_are_trained_again_with_weights(loss: str) -> None:
    x, y = rows(load_wine)
    train, queries = uw.Examples(x[:N], y[:N]), uw.Examples(x[N:], y[N:])
    estimator = PassiveAggressiveClassifier(C=0.3, loss=loss, random_state=0).fit(x[:N], y[:N])
    model = uw.explainable(estimator, train, measure=first)
    np.testing.assert_allclose(model.measure(queries), estimator.decision_function(x[N:])[:, 0])
    explanation = uw.explain(model, train, queries)
    assert explanation.check is not None
    assert explanation.check.verdict == "agrees"
    assert "in the same order" in explanation.warnings[0]


def test_trainings_that_cannot_be_repeated_are_explained_by_refits() -> None:
    x, y = rows(load_wine)
    train = uw.Examples(x[:N], y[:N])
    for settings, reason in (
        ({}, "without a seed drew its order"),
        ({"random_state": 0, "early_stopping": True}, "early_stopping=True leaves out other examples"),
        ({"random_state": 0, "warm_start": True}, "may have been continued"),
    ):
        model = uw.explainable(SGDClassifier(**settings).fit(x[:N], y[:N]), train)
        assert isinstance(model, uw.Refittable)
        assert reason in model.notes[0]
    continued = Perceptron().fit(x[:N], y[:N]).partial_fit(x[:N], y[:N])
    with pytest.raises(ValueError, match="expected the data that Perceptron was fitted on"):
        uw.explainable(continued, train)

"""A regression on equal targets, and a margin of 0, are refused for what they are and not as 'other data'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import HuberRegressor, LinearRegression, PoissonRegressor, QuantileRegressor, Ridge
from sklearn.svm import LinearSVR, NuSVC

import upweight as uw

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 3))
LABELS = (X[:, 0] + 0.5 * RNG.standard_normal(40) > 0).astype(int)
REGRESSIONS = [LinearRegression(), Ridge(), PoissonRegressor(), HuberRegressor(), QuantileRegressor(), LinearSVR()]


@pytest.mark.parametrize("estimator", REGRESSIONS, ids=lambda each: type(each).__name__)
def test_equal_targets_are_named_as_the_reason(estimator: Any) -> None:
    train = uw.Examples(X, np.full(40, 3.0))
    with pytest.raises(ValueError, match="targets that are all 3 and predicts them"):
        uw.explainable(estimator.fit(train.x, train.y), train)


def test_equal_targets_outside_the_prediction_have_effects() -> None:
    """The l2 of its intercept keeps LinearSVR from the targets, by different amounts without an example."""
    train, queries = uw.Examples(X, np.full(40, 3.0)), uw.Examples(X[:3], ids=[*"abc"])
    settings = {"loss": "squared_epsilon_insensitive", "epsilon": 0.1, "tol": 1e-10, "max_iter": 100_000}
    estimator = LinearSVR(**settings).fit(train.x, train.y)
    scores = uw.Influence().fit(uw.explainable(estimator, train, measure=lambda z, y: z[:, -1]), train)
    rest = LinearSVR(**settings).fit(X[1:], train.y[1:])
    truth = estimator.predict(queries.x) - rest.predict(queries.x)
    np.testing.assert_allclose(scores.attribute(queries).values[:, 0], truth, atol=1e-5)


@pytest.mark.parametrize(("kernel", "nu"), [("linear", 0.1), ("linear", 1e-3), ("rbf", 1e-4)])
def test_a_nu_without_a_margin_is_named_as_the_reason(kernel: str, nu: float) -> None:
    train = uw.Examples(X, LABELS)
    with pytest.raises(ValueError, match=r"has a margin of .* which its tol of 0.001 does not tell from 0.*Raise nu"):
        uw.explainable(NuSVC(kernel=kernel, nu=nu).fit(X, LABELS), train)


def test_a_nu_with_a_margin_on_other_data_is_refused_for_the_data() -> None:
    estimator = NuSVC(nu=0.3).fit(X, LABELS)
    with pytest.raises(ValueError, match=r"^expected the data that NuSVC was fitted on"):
        uw.explainable(estimator, uw.Examples(X[::-1], LABELS[::-1]))

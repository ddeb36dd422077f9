"""Regressions whose set of zeros, scale or precisions follows from the data: scores equal real refits."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import (
    ARDRegression,
    BayesianRidge,
    ElasticNet,
    ElasticNetCV,
    HuberRegressor,
    Lasso,
    LassoCV,
    LassoLars,
    QuantileRegressor,
    Ridge,
)
from sklearn.preprocessing import StandardScaler

import upweight as uw
from upweight.methods.parts import newton_removal

TIGHT = {"tol": 1e-13, "max_iter": 1_000_000}
N, M = 60, 10


def first(outputs: Any, labels: Any) -> Any:
    return outputs[:, 0]


def narrow() -> tuple[Any, Any]:
    x, y = load_diabetes(return_X_y=True)
    return StandardScaler().fit_transform(x)[: N + M], y[: N + M] / 100


def wide() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(N + M, 150))
    return x, x[:, :6] @ rng.normal(size=6) + rng.normal(size=N + M)


HUBER = {"tol": 1e-11, "max_iter": 1_000_000}
CASES = {
    "lasso": (Lasso(alpha=0.03, **TIGHT), narrow),
    "lasso without an intercept": (Lasso(alpha=0.03, fit_intercept=False, **TIGHT), narrow),
    "elastic net": (ElasticNet(alpha=0.1, l1_ratio=0.3, **TIGHT), narrow),
    "lasso with more columns than examples": (Lasso(alpha=0.15, **TIGHT), wide),
    "elastic net with more columns than examples": (ElasticNet(alpha=0.2, l1_ratio=0.8, **TIGHT), wide),
    "huber": (HuberRegressor(epsilon=1.2, **HUBER), narrow),
    "huber with a strong l2": (HuberRegressor(alpha=3.0, **HUBER), narrow),
    "quantiles": (QuantileRegressor(quantile=0.3, alpha=0.0), narrow),
    "quantiles with an l1": (QuantileRegressor(quantile=0.7, alpha=0.02), narrow),
    "quantiles without an intercept": (QuantileRegressor(alpha=0.02, fit_intercept=False), narrow),
    "lasso by least angles": (LassoLars(alpha=0.03), narrow),
}


def effects(estimator: Any, x: Any, y: Any, removals: Any, weights: Any = None) -> np.ndarray:
    """What removals do to the predictions of queries, by fits of scikit-learn, (m, removals)."""

    def predicted(remaining: Any) -> Any:
        more = {} if weights is None else {"sample_weight": weights[remaining]}
        return clone(estimator).fit(x[:N][remaining], y[:N][remaining], **more).predict(x[N:])

    ones = np.ones(N, bool)
    return np.stack([predicted(ones) - predicted(~np.isin(np.arange(N), r)) for r in removals], axis=1)


TAKES_WEIGHTS = [name for name, (estimator, _) in CASES.items() if not isinstance(estimator, LassoLars)]


@pytest.mark.sweep(3)
@pytest.mark.parametrize(("name", "weighted"), [*((n, False) for n in CASES), *((n, True) for n in TAKES_WEIGHTS)])
def test_scores_equal_real_refits(name: str, weighted: bool) -> None:
    estimator, data = CASES[name]
    x, y = data()
    weights = np.arange(N) % 3.0 if weighted else None
    more = {"sample_weight": weights} if weighted else {}
    fitted_estimator = clone(estimator).fit(x[:N], y[:N], **more)
    train, queries = uw.Examples(x[:N], y[:N], weights=weights), uw.Examples(x[N:], y[N:])
    fitted = uw.Influence().fit(uw.explainable(fitted_estimator, train, measure=first), train)
    removals = [[i] for i in range(1, N, 7)]
    actual = effects(estimator, x, y, removals, weights)
    scores = fitted.attribute(queries)
    # The solver of HuberRegressor stops where the objective falls no more.
    close = 3e-3 if isinstance(estimator, HuberRegressor) else 1e-5
    assert np.abs(scores.values[:, 1::7] - actual).max() <= close * np.abs(actual).max()
    assert scores.diagnostics["warnings"] == []
    group = fitted.remove({"g": [1, 4, 5, 50]}, queries).values
    assert np.abs(group - effects(estimator, x, y, [[1, 4, 5, 50]], weights)).max() <= close * np.abs(group).max()


def test_the_set_of_coefficients_changes_with_removals_in_these_cases() -> None:
    fixed = HuberRegressor | QuantileRegressor
    for estimator, data in (case for case in CASES.values() if not isinstance(case[0], fixed)):
        x, y = data()
        sets = {tuple(clone(estimator).fit(np.delete(x[:N], i, 0), np.delete(y[:N], i)).coef_ != 0) for i in range(N)}
        assert len(sets) > 1


def test_a_choice_by_cross_validation_is_held_and_the_coefficients_can_be_measured() -> None:
    x, y = narrow()
    train = uw.Examples(x[:N], y[:N])
    for chosen in (LassoCV(**TIGHT).fit(x[:N], y[:N]), ElasticNetCV(l1_ratio=[0.5, 0.9], **TIGHT).fit(x[:N], y[:N])):
        model = uw.explainable(chosen, train, measure=uw.Coefficient("x2"))
        fitted = uw.Influence().fit(model, train)
        plain = ElasticNet(alpha=chosen.alpha_, l1_ratio=getattr(chosen, "l1_ratio_", 1.0), **TIGHT)
        without = clone(plain).fit(x[1:N], y[1:N]).coef_[2]
        assert fitted.attribute().values[0, 0] == pytest.approx(chosen.coef_[2] - without, abs=1e-6)
        assert "held fixed: removals do not change the choice" in fitted.diagnostics["warnings"][0]


def test_examples_that_newton_steps_did_not_follow_are_counted_in_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newton_removal, "FREE_OPERATIONS", 1e5)
    x, y = narrow()
    train = uw.Examples(x[:N], y[:N])
    warnings = uw.Influence().fit(uw.explainable(Lasso(0.03, **TIGHT).fit(train.x, train.y), train), train).diagnostics
    assert (
        "those whose removal moves the model least, the set of coefficients that are 0 is held fixed"
        in (warnings["warnings"][0])
    )


def test_bayesian_ridge_is_ridge_at_the_precisions_that_it_found() -> None:
    x, y = narrow()
    train, queries = uw.Examples(x[:N], y[:N]), uw.Examples(x[N:], y[N:])
    estimator = BayesianRidge().fit(train.x, train.y)
    scores = uw.Influence().fit(uw.explainable(estimator, train, measure=first), train).attribute(queries)
    actual = effects(Ridge(alpha=estimator.lambda_ / estimator.alpha_), x, y, [[i] for i in range(0, N, 9)])
    np.testing.assert_allclose(scores.values[:, ::9], actual, rtol=1e-6, atol=1e-9)
    assert "are held fixed: removals do not change them" in scores.diagnostics["warnings"][0]


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_relevance_determination_is_a_ridge_with_a_penalty_of_every_column(fit_intercept: bool) -> None:
    x, y = narrow()
    x = np.c_[x, 0.01 * np.random.default_rng(0).normal(size=(N + M, 4))]
    train, queries = uw.Examples(x[:N], y[:N]), uw.Examples(x[N:], y[N:])
    estimator = ARDRegression(threshold_lambda=100.0, fit_intercept=fit_intercept).fit(train.x, train.y)
    remaining = estimator.lambda_ < estimator.threshold_lambda
    assert not remaining.all()
    penalty = np.diag(estimator.lambda_[remaining] / estimator.alpha_)

    def predicted(rows: Any) -> np.ndarray:
        a, b = x[:N][rows][:, remaining], y[:N][rows]
        centre, mean = (a.mean(axis=0), b.mean()) if fit_intercept else (0.0, 0.0)
        slopes = np.linalg.solve((a - centre).T @ (a - centre) + penalty, (a - centre).T @ (b - mean))
        return np.asarray((x[N:][:, remaining] - centre) @ slopes + mean)

    fitted = uw.Influence().fit(uw.explainable(estimator, train, measure=first), train)
    scores, ones = fitted.attribute(queries), np.arange(N) >= 0
    actual = np.stack([predicted(ones) - predicted(np.arange(N) != i) for i in range(N)], axis=1)
    np.testing.assert_allclose(scores.values, actual, atol=1e-8 * np.abs(actual).max())
    assert f"{int((~remaining).sum())} of {len(remaining)} columns have no weight" in scores.diagnostics["warnings"][0]
    column = int(np.flatnonzero(remaining)[0])
    measured = uw.explainable(estimator, train, measure=uw.Coefficient(column)).measure(queries)
    assert measured[0] == pytest.approx(estimator.coef_[column])


def test_other_data_and_quantiles_that_are_not_one_place() -> None:
    x, y = narrow()
    train = uw.Examples(x[:N], y[:N])
    with pytest.raises(ValueError, match="got examples on which its objective is"):
        uw.explainable(QuantileRegressor(alpha=0.01).fit(x[: N - 9], y[: N - 9]), train)
    twice = uw.Examples(np.c_[x[:N], x[:N, :1]], y[:N])
    model = uw.explainable(QuantileRegressor(alpha=0.0).fit(twice.x, twice.y), twice)
    assert "has no single optimum" in model.notes[0]
    odd = uw.Examples(x[: N - 1], y[: N - 1])
    fitted = uw.Influence().fit(uw.explainable(QuantileRegressor(alpha=9.0).fit(odd.x, odd.y), odd, measure=first), odd)
    scores = fitted.attribute(uw.Examples(x[N:], y[N:]))
    assert any("several quantiles are equally good" in warning for warning in fitted.diagnostics["warnings"])
    middle = np.sort(y[: N - 1])[N // 2 - 2 : N // 2 + 1]  # the median and its neighbours
    assert np.abs(scores.values).max() <= np.ptp(middle)

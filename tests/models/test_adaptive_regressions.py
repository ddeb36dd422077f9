"""Regressions whose set of zeros, scale or precisions follows from the data: scores equal real refits."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    ElasticNetCV,
    HuberRegressor,
    Lasso,
    LassoCV,
    LassoLars,
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
    "lasso by least angles": (LassoLars(alpha=0.03), narrow),
}


def effects(estimator: Any, x: Any, y: Any, removals: Any, weights: Any = None) -> np.ndarray:
    """What removals do to the predictions of queries, by fits of scikit-learn, (m, removals)."""

    def predicted(kept: Any) -> Any:
        more = {} if weights is None else {"sample_weight": weights[kept]}
        return clone(estimator).fit(x[:N][kept], y[:N][kept], **more).predict(x[N:])

    ones = np.ones(N, bool)
    return np.stack([predicted(ones) - predicted(~np.isin(np.arange(N), r)) for r in removals], axis=1)


TAKES_WEIGHTS = [name for name, (estimator, _) in CASES.items() if not isinstance(estimator, LassoLars)]


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
    for estimator, data in (case for case in CASES.values() if not isinstance(case[0], HuberRegressor)):
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

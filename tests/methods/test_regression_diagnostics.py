"""Deletion diagnostics of regressions, compared with textbook formulas in numpy and with refits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import (
    GammaRegressor,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    TweedieRegressor,
)

import upweight as uw
from upweight.linear.model_cache import ModelCache

TIGHT = {"tol": 1e-12, "max_iter": 20_000}
GLMS: dict[str, tuple[Any, float, bool]] = {  # estimator, power of the variance, whether there is a dispersion
    "gamma": (GammaRegressor(alpha=0, **TIGHT), 2.0, True),
    "inverse Gaussian": (TweedieRegressor(power=3, alpha=0, **TIGHT), 3.0, True),
    "Tweedie": (TweedieRegressor(power=1.5, alpha=0, **TIGHT), 1.5, True),
    "Gaussian, log link": (TweedieRegressor(power=0, link="log", alpha=0, **TIGHT), 0.0, True),
    "Poisson": (PoissonRegressor(alpha=0, **TIGHT), 1.0, False),
}
N = 40


def skewed(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, and positive targets with a large dispersion."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, 3))
    return x, rng.gamma(3, np.exp(0.3 * x[:, 0] + 1) / 3)


def fit(estimator: Any, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None, **recipe: Any) -> Any:
    train = uw.Examples(x, y, weights=weights, ids=[f"r{i}" for i in range(len(x))])
    return uw.Influence(**recipe).fit(uw.explainable(estimator.fit(x, y, sample_weight=weights), train), train)


def pearson(name: str, estimator: Any, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """The textbook's hat matrix, dispersion and Cook's distance of a log link, by the expected information."""
    _, power, has_dispersion = GLMS[name]
    design, mu = np.c_[x, np.ones(len(x))], estimator.predict(x)
    w = mu ** (2 - power)
    inverse = np.linalg.inv(design.T @ (w[:, None] * design))
    h = w * np.einsum("ni,ij,nj->n", design, inverse, design)
    residual = (y - mu) / mu ** (power / 2)
    phi = residual @ residual / (len(x) - 4) if has_dispersion else 1.0
    return {"h": h, "phi": phi, "residual": residual, "inverse": inverse, "w": w, "mu": mu, "design": design}


@pytest.mark.parametrize("name", GLMS)
def test_cooks_distance_divides_by_the_dispersion(name: str) -> None:
    x, y = skewed()
    fitted = fit(clone(GLMS[name][0]), x, y)
    of = pearson(name, fitted.original_model.predictor, x, y)
    expected = of["residual"] ** 2 / of["phi"] / 4 * of["h"] / (1 - of["h"]) ** 2
    np.testing.assert_allclose(fitted.cooks_distance(), expected, rtol=1e-4)
    np.testing.assert_allclose(fitted.leverage("expected"), of["h"], rtol=1e-4)


@pytest.mark.parametrize("name", ["gamma", "Gaussian, log link"])
def test_rows_of_weight_0_are_absent_from_the_dispersion(name: str) -> None:
    x, y = skewed()
    weights = (np.arange(N) % 5 > 0).astype(float)
    present = weights > 0
    beside, alone = fit(clone(GLMS[name][0]), x, y, weights), fit(clone(GLMS[name][0]), x[present], y[present])
    np.testing.assert_allclose(beside.cooks_distance()[present], alone.cooks_distance(), rtol=1e-6)
    assert (beside.cooks_distance()[~present] == 0).all()


def test_observed_and_expected_information_agree_for_canonical_links_alone() -> None:
    x, y = skewed()
    poisson = fit(clone(GLMS["Poisson"][0]), x, np.round(y))
    np.testing.assert_array_equal(poisson.leverage(), poisson.leverage("expected"))
    gamma = fit(clone(GLMS["gamma"][0]), x, y)
    assert abs(gamma.leverage() / gamma.leverage("expected") - 1).max() > 0.1
    with pytest.raises(ValueError, match='information="observed" or "expected"'):
        gamma.leverage("fisher")


def lone_dummy(levels: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A dummy that is 1 for the first row only, alone or beside those of all other levels."""
    rng = np.random.default_rng(0)
    level = np.r_[0, rng.integers(1, 4, N - 1)]
    x = np.c_[rng.normal(size=(N, 2)), np.eye(4)[level][:, : 4 if levels else 1]]
    y = rng.normal(size=N)
    y[0] = 1000.0
    return x, y


@pytest.mark.parametrize("levels", [False, True])
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_a_row_of_leverage_one_has_no_deletion_diagnostics(levels: bool, weight: float) -> None:
    x, y = lone_dummy(levels)
    fitted = fit(LinearRegression(), x, y, None if weight == 1 else np.where(np.arange(N) == 0, weight, 1.0))
    for diagnostic in (fitted.cooks_distance, fitted.dfbeta):
        with pytest.warns(UserWarning, match="'r0' has leverage 1"):
            values = diagnostic()
        assert np.isnan(values[0]).all()
        assert np.isfinite(values[1:]).all()


@pytest.mark.parametrize("polish", [0, 30])
def test_the_self_influence_of_a_row_of_leverage_one_is_that_of_the_refit(polish: int, tmp_path: Any) -> None:
    x, y = lone_dummy()
    fitted = fit(LinearRegression(), x, y, polish=polish)
    self_influence = fitted.self_influence()
    refit = LinearRegression().fit(x[1:], y[1:])
    assert self_influence.values[0, 0] == pytest.approx(0.5 * (refit.predict(x[:1])[0] - y[0]) ** 2, rel=1e-8)
    assert self_influence.values[0].argmax() == 0
    assert any("'r0' has leverage 1" in warning for warning in self_influence.diagnostics["warnings"])
    retrained = fitted.model.retrain(fitted.train, (np.arange(N) > 0).astype(float))
    np.testing.assert_allclose(retrained.theta[0, :-1], refit.coef_, atol=1e-8)
    fitted.save(tmp_path / "fit")
    loaded = fitted.recipe.load(tmp_path / "fit", fitted.original_model, fitted.train)
    np.testing.assert_array_equal(loaded.self_influence().values, self_influence.values)
    assert loaded.self_influence().diagnostics["warnings"] == self_influence.diagnostics["warnings"]


@pytest.mark.parametrize("columns", [2, 80])
def test_a_group_that_alone_determines_a_coefficient_is_followed_to_the_smallest_norm(columns: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(160, columns)), rng.normal(size=160)
    x = np.c_[x, np.arange(160) < 2]
    y[:2] += 100.0
    queries = uw.Examples(x[:4], y[:4])
    fitted = fit(LinearRegression(), x, y)
    removed = fitted.remove({"pair": ["r0", "r1"], "other": ["r1", "r5"]}, queries)
    for column, group in enumerate(([0, 1], [1, 5])):
        refit = LinearRegression().fit(np.delete(x, group, axis=0), np.delete(y, group))
        losses = [0.5 * (m.predict(queries.x) - queries.y) ** 2 for m in (fitted.original_model.predictor, refit)]
        np.testing.assert_allclose(removed.values[:, column], losses[1] - losses[0], rtol=1e-5, atol=1e-6)
        retrained = fitted.model.retrain(fitted.train, (~np.isin(np.arange(160), group)).astype(float))
        np.testing.assert_allclose(retrained.theta[0, :-1], refit.coef_, atol=1e-6)
    assert any("Without 1 of 2 groups" in warning for warning in removed.diagnostics["warnings"])


@pytest.mark.filterwarnings("error")
def test_a_row_far_out_but_not_alone_is_not_taken_for_one_of_leverage_one() -> None:
    x, y = lone_dummy()
    x[:, 2] = np.random.default_rng(2).normal(size=N)
    x[0, 2] = 1e4
    fitted = fit(LinearRegression(), x, y)
    assert fitted.leverage()[0] > 1 - 1e-6
    assert np.isfinite(fitted.cooks_distance()).all()
    assert not fitted.self_influence().diagnostics["warnings"]


@pytest.mark.parametrize("copies", [1, 2])
def test_the_only_example_of_a_class_is_marked(copies: int) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    y = (x[:, 0] > 0).astype(int)
    y[5 : 5 + copies] = 2
    fitted = fit(LogisticRegression(**TIGHT), x, y)
    for answer in (fitted.attribute(uw.Examples(x[:3], y[:3])), fitted.self_influence()):
        marked = [warning for warning in answer.diagnostics["warnings"] if "'r5' of class 2" in warning]
        assert len(marked) == (copies == 1)


@pytest.mark.parametrize("reduction", ["sum", "mean", "fixed"])
def test_every_objective_keeps_its_l2(reduction: Any) -> None:
    x, y = skewed()
    train, queries = uw.Examples(x, y), uw.Examples(x[:5] + 0.1, y[:5])
    l2 = 0.3 if reduction == "sum" else 0.3 / N
    summed = uw.explainable(Ridge(0.3).fit(x, y), train)
    model = replace(summed, objective=uw.Objective(reduction, l2), _cache=ModelCache())
    scores = uw.Influence().fit(model, train).attribute(queries).values
    for i in (0, 7):
        remaining = np.arange(N) != i
        alpha = l2 * remaining.sum() if reduction == "mean" else 0.3
        before, after = (Ridge(a).fit(x[k], y[k]) for a, k in ((0.3, remaining | True), (alpha, remaining)))
        losses = [0.5 * (m.predict(queries.x) - queries.y) ** 2 for m in (before, after)]
        np.testing.assert_allclose(scores[:, i], losses[1] - losses[0], atol=1e-5)

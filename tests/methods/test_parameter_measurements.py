"""Coefficients, and functions of them, as measurements: scores are DFBETA, and agree with refits of the estimator."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.linear_model import GammaRegressor, LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import upweight as uw

TIGHT = {"tol": 1e-12, "max_iter": 20_000}
N = 60


def regression(columns: int = 3) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(N, columns)), columns=[f"c{j}" for j in range(columns)])
    return x, np.exp(0.4 * x["c0"].to_numpy() - 0.2 * x["c1"].to_numpy() + 0.3 * rng.normal(size=N))


def scores_of(estimator: Any, x: Any, y: np.ndarray, measure: Any) -> tuple[Any, np.ndarray]:
    train = uw.Examples(x, y)
    fitted = uw.Influence().fit(uw.explainable(estimator, train, measure=measure), train)
    return fitted, fitted.attribute().values[0]


def refits(estimator: Any, x: Any, y: np.ndarray, of: Any, positions: tuple[int, ...]) -> np.ndarray:
    """The measurement on the fit, minus on refits without each example."""
    effects = []
    for i in positions:
        keep = np.arange(len(y)) != i
        effects.append(of(estimator) - of(clone(estimator).fit(x[keep], y[keep])))
    return np.array(effects)


@pytest.mark.parametrize(
    "estimator",
    [LinearRegression(), GammaRegressor(alpha=0.1, **TIGHT), make_pipeline(StandardScaler(), Ridge(2.0))],
    ids=["least squares", "gamma", "pipeline"],
)
def test_scores_of_a_coefficient_are_dfbeta(estimator: Any) -> None:
    x, y = regression()
    estimator.fit(x, y)
    for place, name in enumerate([*x.columns, "intercept"]):
        fitted, scores = scores_of(estimator, x, y, uw.Coefficient(name))
        np.testing.assert_allclose(scores, fitted.dfbeta()[:, place], atol=1e-8 * np.abs(scores).max())


def test_scores_of_a_coefficient_of_least_squares_are_the_refits() -> None:
    x, y = regression()
    estimator = LinearRegression().fit(x, y)
    fitted, scores = scores_of(estimator, x, y, uw.Coefficient("c1"))
    expected = refits(estimator, x, y, lambda e: e.coef_[1], (0, 7, 30))
    np.testing.assert_allclose(scores[[0, 7, 30]], expected, atol=1e-12)
    answer = fitted.attribute()
    assert answer.query_ids.tolist() == ["coefficient of c1"] and answer.measured == pytest.approx(estimator.coef_[1])
    assert answer.unit == uw.Unit.EFFECT


@pytest.mark.parametrize("solver", ["lbfgs", "liblinear"])
def test_coefficients_of_classifiers_are_those_of_the_estimator(solver: str) -> None:
    x, y = load_iris(return_X_y=True)
    if solver == "liblinear":
        x, y = x[y > 0], y[y > 0]
    scaling = {"intercept_scaling": 10.0} if solver == "liblinear" else {}
    estimator = LogisticRegression(solver=solver, C=0.5, **scaling, **TIGHT).fit(x, y)
    rows = len(estimator.coef_)
    for row in range(rows):
        for column, name in ((2, 2), (-1, "intercept")):
            of = uw.Coefficient((int(estimator.classes_[row]), name) if rows > 1 else name)
            fitted, scores = scores_of(estimator, x, y, of)
            read_parameter = (
                (lambda e, r=row: e.intercept_[r]) if column < 0 else (lambda e, r=row, c=column: e.coef_[r, c])
            )
            assert fitted.attribute().measured[0] == pytest.approx(read_parameter(estimator), rel=1e-4)
            expected = refits(estimator, x, y, read_parameter, (60, 99))
            np.testing.assert_allclose(scores[[60, 99]], expected, atol=1e-3 * np.abs(scores).max())


def test_a_wide_ridge_has_coefficients_too() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 50)), rng.normal(size=20)
    estimator = Ridge(1.0).fit(x, y)
    _, scores = scores_of(estimator, x, y, uw.Coefficient(17))
    np.testing.assert_allclose(scores[[0, 4]], refits(estimator, x, y, lambda e: e.coef_[17], (0, 4)), atol=1e-9)


@pytest.mark.parametrize("with_gradient", [False, True])
def test_a_function_of_the_coefficients_can_be_measured(with_gradient: bool) -> None:
    """The dose at which half respond, −intercept/slope."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 1)) * 1e4
    y = (x[:, 0] / 1e4 + rng.logistic(size=N) > 0.3).astype(int)
    estimator = LogisticRegression(C=np.inf, **TIGHT).fit(x / 1e4, y)

    def half(coef: np.ndarray, intercept: np.ndarray) -> float:
        return float(-intercept[0] / coef[0, 0])

    def slopes(coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.array([[intercept[0] / coef[0, 0] ** 2]]), np.array([-1 / coef[0, 0]])

    measure = uw.ParameterFunction(half, slopes if with_gradient else None)
    fitted, scores = scores_of(estimator, x / 1e4, y, measure)
    expected = refits(estimator, x / 1e4, y, lambda e: -e.intercept_[0] / e.coef_[0, 0], (0, 5, 20))
    np.testing.assert_allclose(scores[[0, 5, 20]], expected, rtol=1e-3, atol=1e-4 * np.abs(scores).max())
    removed = fitted.remove({"first": [0], "some": [1, 2, 3]})
    assert removed.values[0, 0] == pytest.approx(scores[0], rel=1e-3)
    assert fitted.top(k=3).query_ids.tolist() == ["half"]


def test_differences_are_relative_to_each_coefficient() -> None:
    at = uw.Coefficients(np.array([[1e-6, 3.0]]), np.array([2.0]), ("a", "b"), (0,), True)
    values, intercepts = uw.ParameterFunction(lambda coef, intercept: intercept[0] * coef[0, 1] ** 2).slopes(at)
    np.testing.assert_allclose(np.r_[values[0], intercepts], [0.0, 12.0, 9.0], atol=1e-8)


def test_a_measurement_of_parameters_can_be_verified_by_retraining() -> None:
    x, y = regression()
    train = uw.Examples(x, y)
    model = uw.explainable(Ridge(2.0).fit(x, y), train, measure=uw.Coefficient("c0"))
    query = model.parameter_query()
    assert query is not None
    scores = uw.Influence().fit(model, train).attribute()
    check = uw.verify(model, train, query, scores, {str(i): [i] for i in range(12)})
    assert check.slope == pytest.approx(1.0, abs=1e-6)


def test_what_cannot_be_measured_is_refused_with_a_way_out() -> None:
    x, y = regression()
    train = uw.Examples(x, y)
    ridge = Ridge().fit(x, y)
    with pytest.raises(ValueError, match=r"expected a column among \['c0', 'c1', 'c2', 'intercept'\]"):
        uw.explainable(ridge, train, measure=uw.Coefficient("age"))
    fitted = uw.Influence().fit(uw.explainable(ridge, train, measure=uw.Coefficient("c0")), train)
    with pytest.raises(TypeError, match="self-influence needs a measurement of each example"):
        fitted.self_influence()
    with pytest.raises(TypeError, match="expected the queries as"):
        uw.Influence().fit(uw.explainable(ridge, train), train).attribute()
    flowers, species = load_iris(return_X_y=True)
    flower_set = uw.Examples(flowers, species)
    softmax = LogisticRegression(**TIGHT).fit(flowers, species)
    with pytest.raises(ValueError, match=r"expected \(class, column\)"):
        uw.explainable(softmax, flower_set, measure=uw.Coefficient(0))
    with pytest.raises(TypeError, match="has no coefficient of a column"):
        measure = uw.Coefficient(0)
        uw.explainable(
            SVC(kernel="rbf").fit(flowers[:100], species[:100]), flower_set.take(np.arange(100)), measure=measure
        )
    with pytest.raises(ValueError, match="one finite number"):
        uw.explainable(ridge, train, measure=uw.ParameterFunction(lambda c, i: c[0])).measure(train)

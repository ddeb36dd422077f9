"""Models that are not at the optimum of their training objective, and training sets with rows missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.linear_model import (
    GammaRegressor,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import upweight as uw

ROWS_MISSING = re.compile(r"rows may be missing")


def unscaled(n: int = 600) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Columns of very different sizes, on which lbfgs does not come near the optimum in a few iterations."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4)) * [1.0, 10.0, 1e4, 1e5] + [40.0, 10.0, 1e3, 2e5]
    z = 2.0 * rng.normal(size=n) + (x[:, 0] - 40.0) * 2.0 + (x[:, 1] - 10.0) / 10.0
    return x, (z > 0).astype(int)


def stopped_early(max_iter: int = 15) -> tuple[LogisticRegression, uw.Examples, uw.Examples]:
    """A fit whose predictions are not those of its optimum, with its training set and queries."""
    x, y = unscaled()
    estimator = LogisticRegression(max_iter=max_iter).fit(x[:500], y[:500])
    return estimator, uw.Examples(x[:500], y[:500]), uw.Examples(x[500:], y[500:], ids=range(500, 600))


@pytest.mark.parametrize("question", ["attribute", "top", "remove"])
@pytest.mark.filterwarnings("ignore:lbfgs")
def test_queries_that_the_optimum_predicts_otherwise_are_refused_with_the_ways_out(question: str) -> None:
    estimator, train, queries = stopped_early()
    fitted = uw.Influence().fit(uw.explainable(estimator, train, at="model"), train)
    with pytest.raises(ValueError, match=r"Scale the features, raise max_iter or lower tol.*at=\"optimum\""):
        if question == "remove":
            fitted.remove({"first": [0, 1]}, queries)
        else:
            getattr(fitted, question)(queries)


@pytest.mark.filterwarnings("ignore:lbfgs")
def test_accepted_scores_of_the_optimum_show_the_predictions_of_the_model_and_name_the_others(tmp_path) -> None:  # type: ignore[no-untyped-def]
    estimator, train, queries = stopped_early()
    model = uw.explainable(estimator, train, at="optimum")
    scores = uw.Influence().fit(model, train).attribute(queries)
    assert scores.predictions is not None and scores.predictions.probabilities is not None
    assert scores.measured is not None and scores.at_optimum is not None
    assert scores.at_optimum.probabilities is not None
    probabilities = estimator.predict_proba(queries.x)
    np.testing.assert_array_equal(scores.predictions.probabilities, probabilities)
    np.testing.assert_allclose(scores.measured, np.log(probabilities[np.arange(100), queries.y]), rtol=1e-9)
    optimum = LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(train.x, train.y)
    np.testing.assert_allclose(scores.at_optimum.probabilities, optimum.predict_proba(queries.x), atol=1e-6)
    assert any("the model's own" in w and "query" in w for w in scores.diagnostics["warnings"])
    scores.save(tmp_path / "scores.npz")
    loaded = uw.Scores.load(tmp_path / "scores.npz").at_optimum
    assert loaded is not None and loaded.predicted == scores.at_optimum.predicted
    np.testing.assert_array_equal(loaded.probabilities, scores.at_optimum.probabilities)


@pytest.mark.filterwarnings("ignore:lbfgs")
def test_json_and_page_show_what_the_model_predicts_and_what_its_optimum_would(tmp_path) -> None:  # type: ignore[no-untyped-def]
    estimator, train, queries = stopped_early()
    explanation = uw.explain(uw.explainable(estimator, train, at="optimum"), train, queries, removals=0)
    first = explanation.as_dict()["queries"][0]
    assert first["probability"] == pytest.approx(estimator.predict_proba(queries.x).max(axis=1)[0])
    assert set(first["at_optimum"]) == {"predicted", "probability"}
    page = uw.write_report(tmp_path / "page.html", explanation.scores, train, queries).read_text(encoding="utf-8")
    assert "atOptimum" in page


def test_a_scaled_fit_with_the_default_tolerance_is_answered_without_a_word() -> None:
    x, y = unscaled()
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[:500], y[:500])
    train = uw.Examples(x[:500], y[:500])
    scores = uw.Influence().fit(uw.explainable(estimator, train), train).attribute(uw.Examples(x[500:], y[500:]))
    assert scores.at_optimum is None
    assert not any("model's own" in w or "missing" in w for w in scores.diagnostics["warnings"])


def test_regression_far_from_its_optimum_is_refused() -> None:
    x, y = load_diabetes(return_X_y=True, scaled=False)
    estimator = PoissonRegressor(alpha=1e-3, max_iter=3).fit(x, y)
    train = uw.Examples(x, y)
    with pytest.raises(ValueError, match=r"optimum|fitted on"):
        uw.Influence().fit(uw.explainable(estimator, train), train).attribute(train.take(range(20)))


def test_at_is_for_models_with_an_optimum() -> None:
    from sklearn.ensemble import GradientBoostingRegressor

    x, y = load_diabetes(return_X_y=True)
    estimator = GradientBoostingRegressor(n_estimators=3).fit(x, y)
    with pytest.raises(TypeError, match="at= is for models whose training ends at an optimum"):
        uw.explainable(estimator, uw.Examples(x, y), at="optimum")
    with pytest.raises(ValueError, match="expected at="):
        uw.explainable(Ridge().fit(x, y), uw.Examples(x, y), at="best")  # type: ignore[arg-type]


@pytest.mark.parametrize("load", [load_breast_cancer, load_wine, load_iris])
def test_default_fits_on_scaled_tables_have_no_warning(load: Callable[..., Any]) -> None:
    x, y = load(return_X_y=True)
    train = uw.Examples(x, y)
    for solver in ("lbfgs", "newton-cholesky", "newton-cg", "sag"):
        estimator = make_pipeline(StandardScaler(), LogisticRegression(solver=solver, max_iter=2000)).fit(x, y)
        scores = uw.Influence().fit(uw.explainable(estimator, train), train).attribute(train.take(range(5)))
        assert scores.diagnostics["warnings"] == [], solver


FITS = [
    LogisticRegression(tol=1e-10, max_iter=9999),
    LogisticRegression(solver="newton-cholesky", tol=1e-8),
    LogisticRegression(C=0.01, tol=1e-8, max_iter=9999),
    Ridge(),
    LinearRegression(),
    RidgeClassifier(),
    PoissonRegressor(tol=1e-7, max_iter=9999),
    GammaRegressor(tol=1e-7, max_iter=9999),
]


def _data(estimator: object, seed: int) -> tuple[NDArray[np.float64], NDArray[np.generic]]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 5))
    z = x[:, 0] + 0.5 * rng.normal(size=200)
    return x, np.exp(z) if type(estimator).__name__.endswith("or") or "Linear" in str(estimator) else (z > 0).astype(
        int
    )


def _warnings(estimator: object, x: NDArray[np.float64], y: NDArray[np.generic]) -> list[str]:
    """The warnings of scores, or the message if the training set is refused."""
    train = uw.Examples(x, y)
    try:
        scores = uw.Influence().fit(uw.explainable(estimator, train), train).attribute(train.take([0]))
    except ValueError as error:
        return [str(error)]
    return list(scores.diagnostics["warnings"])


@pytest.mark.sweep(3)
@pytest.mark.parametrize("estimator", FITS, ids=str)
def test_a_missing_row_of_a_fit_that_converged_is_named_and_tol_is_not(estimator: object) -> None:
    for seed in range(10):
        x, y = _data(estimator, seed)
        fitted = clone(estimator).fit(x, y)
        for present in (slice(0, -1), slice(1, None), slice(0, -5)):
            messages = _warnings(fitted, x[present], y[present])
            assert any(ROWS_MISSING.search(message) for message in messages), (seed, present, messages)
            assert not any("lower tol" in message for message in messages)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("estimator", [*FITS, LogisticRegression(), LogisticRegression(solver="liblinear")], ids=str)
def test_complete_training_sets_are_not_said_to_lack_rows(estimator: object) -> None:
    for seed in range(10):
        x, y = _data(estimator, seed)
        for scale in (1.0, np.array([1.0, 10.0, 1e-3, 1e3, 1e5])):
            if np.ndim(scale) and str(estimator).startswith(("Poisson", "Gamma")):
                continue  # exp() overflows in the solver, which gives up: such fits are refused
            messages = _warnings(clone(estimator).fit(x * scale, y), x * scale, y)
            assert not any(ROWS_MISSING.search(message) for message in messages), (seed, messages)


AVERAGED = [
    LogisticRegression(solver="sag", tol=1e-7, max_iter=9999),
    LogisticRegression(solver="saga", tol=1e-7, max_iter=9999),
    Ridge(solver="sag", tol=1e-7, max_iter=9999),
    Ridge(solver="saga", tol=1e-7, max_iter=9999),
    Ridge(solver="lsqr"),
    Ridge(solver="sparse_cg"),
]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("estimator", AVERAGED, ids=str)
def test_a_missing_row_is_named_for_solvers_that_do_not_look_at_the_gradient_too(estimator: object) -> None:
    for seed in range(3):
        x, y = _data(estimator, seed)
        fitted = clone(estimator).fit(x, y)
        assert not any(ROWS_MISSING.search(message) for message in _warnings(fitted, x, y))
        assert any(ROWS_MISSING.search(message) for message in _warnings(fitted, x[:-5], y[:-5])), seed
        assert any(ROWS_MISSING.search(message) for message in _warnings(fitted, x[:-1], y[:-1])), seed


@pytest.mark.sweep(3)
@pytest.mark.parametrize("estimator", [*AVERAGED, Ridge(solver="sag"), LogisticRegression(solver="sag")], ids=str)
def test_complete_sets_are_not_said_to_lack_rows_for_these_solvers(estimator: object) -> None:
    for seed in range(4):
        x, y = _data(estimator, seed)
        x = x * np.array([10.0, 1.0, 1.0, 1.0, 1.0]) + np.array([3.0, 0.0, 0.0, 0.0, 0.0])
        fitted = clone(estimator).set_params(tol=1e-4).fit(x, y)
        assert not any(ROWS_MISSING.search(message) for message in _warnings(fitted, x, y))


def test_rows_missing_from_a_logistic_fit_in_single_precision_are_named_and_complete_fits_are_not_accused() -> None:
    for seed in range(3):
        x, y = _data(LogisticRegression(), seed)
        x = x.astype(np.float32)
        fitted = LogisticRegression(tol=1e-6, max_iter=999).fit(x, y)
        assert not any(ROWS_MISSING.search(message) for message in _warnings(fitted, x, y))
        assert any(ROWS_MISSING.search(message) for message in _warnings(fitted, x[:-20], y[:-20])), seed


@pytest.mark.parametrize("kind", [PoissonRegressor, GammaRegressor])
def test_a_solver_that_gave_up_is_advised_to_converge_and_not_that_rows_are_missing(kind: type) -> None:
    x, y = _data(kind(), 0)
    x = x * np.array([1.0, 10.0, 1e-3, 1e3, 1e5])
    (message,) = _warnings(kind().fit(x, y), x, y)
    assert "given up far from the optimum: scale the features" in message and not ROWS_MISSING.search(message)
    scaled = StandardScaler().fit_transform(x)
    fitted = kind(tol=1e-7, max_iter=999).fit(scaled, y)
    assert any(ROWS_MISSING.search(message) for message in _warnings(fitted, scaled[:-60], y[:-60]))


@pytest.mark.parametrize("tolerance", [1e-4, 1e-8])
def test_real_tables_with_all_their_rows_are_not_said_to_lack_rows(tolerance: float) -> None:
    for load in (load_breast_cancer, load_wine):
        x, y = load(return_X_y=True)
        for matrix in (x, StandardScaler().fit_transform(x)):
            messages = _warnings(LogisticRegression(tol=tolerance, max_iter=20_000).fit(matrix, y), matrix, y)
            assert not any(ROWS_MISSING.search(message) for message in messages)

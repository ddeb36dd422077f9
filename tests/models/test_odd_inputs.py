"""Estimators on odd data: effects are those of scikit-learn's own refits, or are refused in a sentence."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    HuberRegressor,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
)
from sklearn.naive_bayes import BernoulliNB, GaussianNB, MultinomialNB
from sklearn.neighbors import NearestCentroid
from sklearn.svm import SVR, LinearSVC, LinearSVR

import upweight as uw

ROWS, QUERIES, REMOVED = 30, 5, (0, 7, 19)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((ROWS + QUERIES, 4))
Y = X @ RNG.standard_normal(4) + RNG.standard_normal(ROWS + QUERIES)
WEIGHTS = np.where(np.arange(ROWS) % 9 == 4, 0.0, 1.0 + (np.arange(ROWS) % 5 == 0))

ESTIMATORS: dict[str, tuple[Callable[[], Any], str]] = {
    "least squares": (LinearRegression, "numbers"),
    "ridge": (Ridge, "numbers"),
    "elastic net": (lambda: ElasticNet(alpha=0.1, tol=1e-12, max_iter=100_000), "numbers"),
    "poisson": (lambda: PoissonRegressor(tol=1e-10, max_iter=5000), "counts"),
    "logistic": (lambda: LogisticRegression(tol=1e-10, max_iter=5000), "classes"),
    "ridge classifier": (RidgeClassifier, "classes"),
    "linear SVC": (lambda: LinearSVC(tol=1e-10, max_iter=100_000), "classes"),
    "linear SVR": (lambda: LinearSVR(epsilon=0.1, tol=1e-10, max_iter=100_000), "numbers"),
    "SVR": (lambda: SVR(gamma=0.25, tol=1e-10), "numbers"),
    "Huber": (lambda: HuberRegressor(tol=1e-10, max_iter=10_000), "numbers"),
    "kernel ridge": (lambda: KernelRidge(kernel="rbf", alpha=0.5), "numbers"),
}
SOLVERS_THAT_STALL = ("linear SVC", "Huber")  # with a huge column, in the fit or in some refits
CLOSED_FORMS: dict[str, Callable[[], Any]] = {
    "Gaussian naive Bayes": GaussianNB,
    "Bernoulli naive Bayes": BernoulliNB,
    "multinomial naive Bayes": MultinomialNB,
    "linear discriminants": LinearDiscriminantAnalysis,
    "linear discriminants, by covariance": lambda: LinearDiscriminantAnalysis(solver="lsqr"),
    "quadratic discriminants": lambda: QuadraticDiscriminantAnalysis(reg_param=0.1),
    "nearest centroid": NearestCentroid,
    "isotonic": lambda: IsotonicRegression(out_of_bounds="clip"),
}
TARGETS = {"numbers": Y, "counts": np.exp(Y / 3), "classes": (Y > 0).astype(int)}


def column(factor: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """X with another second column."""
    x = X.copy()
    x[:, 1] = factor * x[:, 1] + shift
    return x


def read_only() -> np.ndarray:
    x = X.copy()
    x.setflags(write=False)
    return x


INPUTS: dict[str, Callable[[], Any]] = {
    "constant column": lambda: column(0.0, 3.0),
    "column of zeros": lambda: column(0.0),
    "two equal columns": lambda: np.c_[X, X[:, 0]],
    "tiny column": lambda: column(1e-6),
    "equal rows": lambda: X[np.maximum(np.arange(len(X)) - 4, 0)],
    "huge column": lambda: column(1e8),
    "whole numbers": lambda: np.round(3 * X).astype(np.int8),
    "booleans": lambda: X > 0,
    "half precision": lambda: X.astype(np.float16),
    "single precision": lambda: X.astype(np.float32),
    "Fortran order": lambda: np.asfortranarray(X),
    "every second number": lambda: np.repeat(np.repeat(X, 2, axis=0), 2, axis=1)[::2, ::2],
    "read only": read_only,
}
COARSE = {"half precision", "single precision"}  # scikit-learn fits some estimators in that precision
LABELS: dict[str, Callable[[np.ndarray], Any]] = {
    "a column": lambda y: y[:, None],
    "words": lambda y: np.where(y > 0, "yes", "no").astype(object),
    "booleans": lambda y: y > 0,
    "decimals": lambda y: y.astype(np.float32),
}


def refusal(error: Exception) -> bool:
    """Whether an error is a sentence of this package."""
    source = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
    return isinstance(error, ValueError | TypeError) and source.is_relative_to(Path(uw.__file__).resolve().parent)


def outputs(estimator: Any, x: Any) -> np.ndarray:
    decide = getattr(estimator, "decision_function", estimator.predict)
    return np.asarray(decide(x), dtype=np.float64)


def fitted(make: Callable[[], Any], x: Any, y: Any, weights: Any = None, without: int | None = None) -> Any:
    counted = np.ones(ROWS, dtype=bool) if weights is None else weights > 0
    if without is not None:
        counted &= np.arange(ROWS) != without
    target = np.asarray(y)[:ROWS][counted]
    target = target[:, 0] if target.ndim == 2 else target
    given = {} if weights is None else {"sample_weight": weights[counted]}
    return make().fit(x[:ROWS][counted], target, **given)


def scores_of(estimator: Any, x: Any, y: Any, weights: Any = None, **more: Any) -> uw.Scores | None:
    """Scores of outputs; None if the estimator is refused."""
    train = uw.Examples(x[:ROWS], y[:ROWS], weights=weights)
    queries = uw.Examples(x[ROWS:], ids=[f"q{i}" for i in range(QUERIES)])
    try:
        model = uw.explainable(estimator, train, measure=lambda z, y: z[:, -1], **more)
        return uw.Influence().fit(model, train).attribute(queries)
    except Exception as error:
        if not refusal(error):
            raise
        return None


def assert_effects_are_those_of_refits(
    make: Callable[[], Any], x: Any, y: Any, weights: Any = None, tolerance: float = 1e-3
) -> bool:
    """Returns False if the estimator is refused."""
    estimator = fitted(make, x, y, weights)
    scores = scores_of(estimator, x, y, weights)
    if scores is None:
        return False
    before = outputs(estimator, x[ROWS:])
    truth = [before - outputs(fitted(make, x, y, weights, i), x[ROWS:]) for i in REMOVED]
    np.testing.assert_allclose(scores.measured, before, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(scores.values[:, REMOVED].T, truth, atol=tolerance * np.abs(truth).max())
    assert not any("rows may be missing" in warning for warning in scores.diagnostics["warnings"])
    return True


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        (name, inputs)
        for name in ESTIMATORS
        for inputs in INPUTS
        if inputs != "huge column" or name not in SOLVERS_THAT_STALL  # whose refits are not at their optima
    ],
)
def test_odd_inputs(name: str, inputs: str) -> None:
    make, target = ESTIMATORS[name]
    tolerance = 0.03 if inputs in COARSE else 5e-3 if name == "Huber" else 1e-3
    answers = assert_effects_are_those_of_refits(make, INPUTS[inputs](), TARGETS[target], tolerance=tolerance)
    assert answers or inputs in ("huge column", "tiny column")


def optimum_of_squared_hinge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Outputs of a LinearSVC for the queries, by BFGS in units of the columns."""
    units = np.append(np.abs(x).mean(axis=0), 1.0)
    features, signs = np.c_[x, np.ones(len(x))] / units, 2.0 * y - 1.0

    def objective(scaled: np.ndarray) -> tuple[float, np.ndarray]:
        theta, short = scaled / units, np.maximum(0.0, 1.0 - signs * (features[: len(y)] @ scaled))
        return 0.5 * theta @ theta + short @ short, theta / units - 2.0 * features[: len(y)].T @ (short * signs)

    found = minimize(objective, np.zeros(len(units)), jac=True, method="BFGS", options={"gtol": 1e-11})
    return np.asarray(features[-QUERIES:] @ found.x)


@pytest.mark.parametrize("name", SOLVERS_THAT_STALL)
def test_effects_on_a_huge_column_are_those_of_the_optima_that_the_solver_misses(name: str) -> None:
    """Their solvers stop early there, so that the fit is refused or has a warning."""
    make, target = ESTIMATORS[name]
    x, y = column(1e8), TARGETS[target][:ROWS]
    estimator = fitted(make, x, y)
    scores = scores_of(estimator, x, y)
    assert scores is None or any("may stop before the optimum" in each for each in scores.diagnostics["warnings"])
    at_optimum = scores_of(estimator, x, y, at="optimum")
    if at_optimum is None:
        return

    def optimum(remaining: np.ndarray) -> np.ndarray:
        if name == "linear SVC":
            return optimum_of_squared_hinge(np.vstack([x[remaining], x[ROWS:]]), y[remaining])
        return outputs(make().fit(X[remaining], y[remaining]), X[ROWS:])  # its l2 is too small to depend on units

    positions = np.arange(ROWS)
    truth = [optimum(positions) - optimum(np.delete(positions, i)) for i in REMOVED]
    np.testing.assert_allclose(at_optimum.values[:, REMOVED].T, truth, atol=5e-3 * np.abs(truth).max())


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    ("make", "factor", "has_warning"),
    [
        (LogisticRegression, 1.0, False),
        (LogisticRegression, 1e6, True),
        (lambda: LogisticRegression(tol=0.01), 1.0, False),  # a distance of .4, which refits keep too
        (lambda: LogisticRegression(tol=0.05), 1.0, True),
        (lambda: LogisticRegression(solver="liblinear"), 1.0, False),
        (LinearSVC, 1.0, False),
        (LinearSVC, 1e4, True),
        (lambda: HuberRegressor(max_iter=1000), 1.0, False),
        (lambda: HuberRegressor(max_iter=1000), 1e4, True),
        (lambda: SVR(gamma=0.25), 1.0, False),
        (PoissonRegressor, 1.0, False),
    ],
)
def test_a_solver_that_stops_far_from_the_optimum_beside_the_effects_is_told(
    make: Callable[[], Any], factor: float, has_warning: bool
) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((65, 4))
    y = x @ rng.standard_normal(4) + rng.standard_normal(65)
    x[:, 1] *= factor
    name = type(make()).__name__
    y = (y > 0).astype(int) if name in ("LogisticRegression", "LinearSVC") else np.exp(y / 3)
    train, queries = uw.Examples(x[:60], y[:60]), uw.Examples(x[60:], ids=[*"abcde"])
    estimator = make().fit(train.x, train.y)
    try:
        fit = uw.Influence().fit(uw.explainable(estimator, train, measure=lambda z, y: z[:, -1]), train)
        answers = [fit.attribute(queries).diagnostics, fit.top(queries, 3).diagnostics]
    except ValueError as error:
        assert refusal(error) and has_warning
        return
    for answer in answers:
        warnings = " ".join(answer["warnings"])
        assert has_warning == ("may stop before the optimum" in warnings or "The solver stopped so far" in warnings)


@pytest.mark.parametrize("inputs", INPUTS)
def test_odd_inputs_of_bayesian_ridge(inputs: str) -> None:
    """Its precisions are held fixed, so that refits are those of a ridge with their ratio, which a note says."""
    x = INPUTS[inputs]()
    estimator = BayesianRidge(tol=1e-12, max_iter=10_000).fit(x[:ROWS], Y[:ROWS])
    train = uw.Examples(x[:ROWS], Y[:ROWS])
    model = uw.explainable(estimator, train, measure=lambda z, y: z[:, -1])
    scores = uw.Influence().fit(model, train).attribute(uw.Examples(x[ROWS:], ids=[f"q{i}" for i in range(QUERIES)]))
    alpha = float(estimator.lambda_ / estimator.alpha_)
    wide = x.astype(np.float64)
    positions = np.arange(ROWS)
    before, *without = (
        Ridge(alpha, solver="svd").fit(wide[remaining], Y[remaining]).predict(wide[ROWS:])
        for remaining in (positions, *(np.delete(positions, i) for i in REMOVED))
    )
    truth = [before - each for each in without]
    tolerance = 0.03 if inputs in COARSE else 1e-3
    np.testing.assert_allclose(scores.values[:, REMOVED].T, truth, atol=tolerance * np.abs(truth).max())
    assert any("held fixed" in warning for warning in scores.diagnostics["warnings"])


@pytest.mark.sweep(3)
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_odd_inputs_of_closed_forms(name: str, inputs: str) -> None:
    if inputs in ("half precision", "booleans") and name in ("quadratic discriminants", "nearest centroid"):
        pytest.skip("scikit-learn does not fit them on these")
    make, x, y = CLOSED_FORMS[name], INPUTS[inputs](), TARGETS["numbers" if name == "isotonic" else "classes"]
    x = x[:, 1:2] if name == "isotonic" else np.abs(x) if name.startswith("multinomial") else x
    train, queries = uw.Examples(x[:ROWS], y[:ROWS]), uw.Examples(x[ROWS:], y[ROWS:], ids=[*"abcde"])
    try:
        scores = uw.LeaveOneOut().fit(uw.explainable(make().fit(x[:ROWS], y[:ROWS]), train), train).attribute(queries)
    except ValueError as error:
        assert refusal(error) and inputs in ("half precision", "tiny column", "huge column")
        return
    truth = []
    for i in REMOVED:
        rest = train.take(np.delete(np.arange(ROWS), i))
        truth.append(scores.measured - uw.explainable(make().fit(rest.x, rest.y), rest).measure(queries))
    tolerance = 0.03 if inputs in COARSE else 1e-3
    np.testing.assert_allclose(scores.values[:, REMOVED].T, truth, atol=tolerance * np.abs(truth).max())


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", ["ridge", "logistic", "ridge classifier", "linear SVC"])
def test_odd_labels(name: str, labels: str) -> None:
    make, target = ESTIMATORS[name]
    if target == "numbers" and labels == "words":
        pytest.skip("words are no numbers")
    assert assert_effects_are_those_of_refits(make, X, LABELS[labels](TARGETS[target]))


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "kernel ridge"])
def test_rows_of_weight_0_and_2(name: str) -> None:
    make, target = ESTIMATORS[name]
    assert assert_effects_are_those_of_refits(make, X, TARGETS[target], WEIGHTS)


@pytest.mark.parametrize("make", [Ridge, LinearRegression, lambda: Ridge(solver="svd"), RidgeClassifier])
def test_a_row_that_is_missing_is_named_in_single_precision_too(make: Callable[[], Any]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((150, 4)).astype(np.float32)
    y = (x[:, 0] + rng.standard_normal(150)).astype(np.float32)
    y = (y > 0).astype(int) if make is RidgeClassifier else y
    estimator = make().fit(x, y)
    for rows, is_missing in ((len(x), False), (len(x) - 1, True)):
        train = uw.Examples(x[:rows], y[:rows])
        warnings = uw.Influence().fit(uw.explainable(estimator, train), train).diagnostics["warnings"]
        assert any("rows may be missing" in warning for warning in warnings) == is_missing


@pytest.mark.sweep(3)
@pytest.mark.parametrize("shift", [1e3, 1e4, 1e6])
@pytest.mark.parametrize("columns", [2, 5])
def test_rows_are_missing_on_a_column_far_from_0_only_if_they_are(columns: int, shift: float) -> None:
    """There the gradient that the solver accepts is large about the means of the columns."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((400, columns))
        y = (x[:, 0] + rng.standard_normal(400) > 0).astype(int)
        x[:, 1] += shift
        estimator = LogisticRegression(max_iter=1000).fit(x, y)
        messages = []
        for rows in (400, 399):
            train = uw.Examples(x[:rows], y[:rows])
            try:
                messages.append(
                    str(uw.Influence().fit(uw.explainable(estimator, train), train).diagnostics["warnings"])
                )
            except ValueError as error:
                messages.append(str(error))
        assert ["rows may be missing" in each for each in messages] == [False, True], (seed, messages)


def test_the_refusal_of_a_fit_in_half_precision_says_so() -> None:
    x = (X + 50).astype(np.float16)
    estimator, train = LinearRegression().fit(x, Y.astype(np.float16)), uw.Examples(x, Y.astype(np.float16))
    with pytest.raises(ValueError, match=r"fitted in half precision.*fit it on x\.astype\(np\.float64\)"):
        uw.Influence().fit(uw.explainable(estimator, train), train)

"""Rows of weight 0 and of weight k in linear models: statistics of every row, and estimators that see weights."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import (
    GammaRegressor,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    TweedieRegressor,
)
from sklearn.svm import SVC, LinearSVC

import upweight as uw
from support.scikit_learn_versions import logistic_regression_cv

N = 40
ABSENT = np.where(np.arange(N) % 8 < 2, 0.0, 1.0)
COPIES = np.ones(N)
COPIES[5], COPIES[17] = 3.0, 10.0
TIGHT = {"tol": 1e-10, "max_iter": 20_000}
CLASSIFIERS = [
    LogisticRegression(**TIGHT),
    LogisticRegression(solver="liblinear", tol=1e-12, max_iter=10_000),
    RidgeClassifier(),
    LinearSVC(tol=1e-12, max_iter=200_000, random_state=0),
    LinearSVC(loss="hinge", C=0.2, tol=1e-10, max_iter=2_000_000, random_state=0),
    SVC(kernel="poly", degree=2, gamma=0.2, tol=1e-10),
]
REGRESSORS = [
    LinearRegression(),
    Ridge(2.0),
    PoissonRegressor(alpha=0.1, **TIGHT),
    GammaRegressor(alpha=0.1, **TIGHT),
    TweedieRegressor(power=0, alpha=0.1, **TIGHT),
]


def data(classes: int = 0, columns: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, columns))
    score = x[:, 0] - x[:, 1] + rng.normal(size=N)
    return x, np.digitize(score, [-0.5, 0.8][: classes - 1]) if classes else np.exp(0.5 * score)


def both(estimator: Any, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> list[tuple[Any, uw.Examples]]:
    """(model, training set) with weights, and written out at the same parameters."""
    rows = np.repeat(np.arange(N), weights.astype(int))
    fitted = estimator.fit(x, y, sample_weight=weights)
    if isinstance(estimator, SVC) and (weights > 1).any():
        fitted = type(estimator)(**estimator.get_params()).fit(x[rows], y[rows])
    sets = uw.Examples(x, y, weights=weights), uw.Examples(x[rows], y[rows])
    if fitted is not estimator:
        return [(uw.explainable(estimator, sets[0]), sets[0]), (uw.explainable(fitted, sets[1]), sets[1])]
    return [(uw.explainable(fitted, some), some) for some in sets]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("weights", [ABSENT, COPIES], ids=["absent", "copies"])
@pytest.mark.parametrize("estimator", CLASSIFIERS + REGRESSORS, ids=str)
def test_every_estimator_counts_by_weight(estimator: Any, weights: np.ndarray) -> None:
    classes = 0 if estimator in REGRESSORS else 2 if "liblinear" in str(estimator) else 3
    x, y = data(classes)
    queries = uw.Examples(x[:6] + 0.1, y[:6], ids=np.arange(100, 106))
    rows = np.repeat(np.arange(N), weights.astype(int))
    close = 1e-3 if isinstance(estimator, SVC) and (weights > 1).any() else 1e-8  # what libsvm leaves of two trainings
    for recipe in (uw.Influence(correction=None), uw.RelatIF(), uw.GradCos()):
        ours, theirs = (recipe.fit(*pair).attribute(queries) for pair in both(estimator, x, y, weights))
        expected = np.stack([theirs.values[:, rows == i].sum(1) for i in range(N)], axis=1)
        assert np.abs(ours.values - expected).max() <= close * np.abs(expected).max(), recipe
        assert (ours.values[:, weights == 0] == 0).all()


@pytest.mark.filterwarnings("ignore:.*LogisticRegressionCV", "ignore:.*l1_ratios", "ignore:.*scoring")
def test_a_choice_by_cross_validation_counts_by_weight() -> None:
    x, y = data(2)
    estimator = logistic_regression_cv(Cs=[0.1, 1.0], **TIGHT).fit(x, y, ABSENT)
    train, present = uw.Examples(x, y, weights=ABSENT), np.flatnonzero(ABSENT)
    some = uw.Examples(x[present], y[present])
    ours, theirs = (
        uw.Influence().fit(uw.explainable(estimator, t), t).attribute(some.take([0])) for t in (train, some)
    )
    np.testing.assert_allclose(ours.values[:, present], theirs.values, rtol=1e-8)


def test_cooks_distance_of_rows_beside_absent_ones_is_the_textbooks() -> None:
    x, y = data()
    model, train = both(LinearRegression(), x, y, ABSENT)[0]
    distances = uw.Influence().fit(model, train).cooks_distance()
    present = ABSENT > 0
    design = np.c_[np.ones(present.sum()), x[present]]
    h = np.diag(design @ np.linalg.pinv(design))
    r = y[present] - design @ np.linalg.lstsq(design, y[present], rcond=None)[0]
    p = design.shape[1]
    np.testing.assert_allclose(
        distances[present], r**2 * h / (1 - h) ** 2 / (p * (r @ r) / (present.sum() - p)), rtol=1e-7
    )
    assert (distances[~present] == 0).all()


def test_cooks_distance_of_a_weighted_row_takes_all_its_copies() -> None:
    """s² counts copies, and Δθ is the refit without any of them."""
    x, y = data()
    model, train = both(LinearRegression(), x, y, COPIES)[0]
    distances = uw.Influence().fit(model, train).cooks_distance()
    design, w = np.c_[x, np.ones(N)], COPIES
    gram = design.T @ (w[:, None] * design)
    theta = np.linalg.solve(gram, design.T @ (w * y))
    s2 = w @ (y - design @ theta) ** 2 / (w.sum() - 5)
    for i in (0, 5, 17):
        without = np.where(np.arange(N) == i, 0.0, w)
        moved = np.linalg.solve(design.T @ (without[:, None] * design), design.T @ (without * y)) - theta
        assert distances[i] == pytest.approx(moved @ gram @ moved / (5 * s2), rel=1e-7)


def test_fractional_weights_are_precisions() -> None:
    """As in weighted least squares: n counts rows, and no unit of the weights changes a distance."""
    x, y = data()
    weights = np.random.default_rng(1).uniform(0.1, 3.0, N)
    lines = []
    for scale in (1.0, 0.01):
        model, train = (
            uw.explainable(
                LinearRegression().fit(x, y, scale * weights), some := uw.Examples(x, y, weights=scale * weights)
            ),
            some,
        )
        lines.append(uw.Influence().fit(model, train).cooks_distance())
    np.testing.assert_allclose(lines[1], lines[0], rtol=1e-6)


@pytest.mark.parametrize("weights", [ABSENT, COPIES], ids=["absent", "copies"])
@pytest.mark.parametrize("estimator", [LogisticRegression(**TIGHT), Ridge(2.0)], ids=str)
def test_leverages_add_up_and_shifts_take_all_copies(estimator: Any, weights: np.ndarray) -> None:
    x, y = data(0 if isinstance(estimator, Ridge) else 3)
    (model, train), (other, written) = both(estimator, x, y, weights)
    ours, theirs = uw.Influence().fit(model, train), uw.Influence().fit(other, written)
    rows = np.repeat(np.arange(N), weights.astype(int))
    expected = np.bincount(rows, theirs.leverage(), N)
    np.testing.assert_allclose(ours.leverage(), expected, atol=1e-9)
    single = np.flatnonzero(weights == 1)
    first = [int(np.flatnonzero(rows == i)[0]) for i in single]
    np.testing.assert_allclose(ours.dfbeta()[single], theirs.dfbeta()[first], atol=1e-8)
    np.testing.assert_allclose(ours.cooks_distance()[single], theirs.cooks_distance()[first], rtol=1e-7, atol=1e-12)
    assert ours.diagnostics["gradient_norm"] == pytest.approx(theirs.diagnostics["gradient_norm"], rel=1e-6)
    assert (ours.dfbeta()[weights == 0] == 0).all()


def test_weights_of_classes_are_no_copies() -> None:
    """They are part of the loss: a balanced fit counts every row once, as it did."""
    x, y = data(3)
    estimator = LogisticRegression(class_weight={0: 2, 1: 1, 2: 5}, **TIGHT).fit(x, y)
    train = uw.Examples(x, y)
    problem = uw.explainable(estimator, train).problem(train)
    assert problem.counts is None and problem.noise_of_copies == problem.noise


def test_absent_rows_of_a_wide_problem_make_no_coordinates() -> None:
    x, y = data(2, columns=90)
    model, _ = both(LogisticRegression(C=0.1, **TIGHT), x, y, ABSENT)[0]
    assert model.design.coordinates.pivots.size <= ABSENT.sum()


def test_sgd_decays_with_every_row_and_scores_no_absent_one() -> None:
    x, y = data(2)
    estimator = SGDClassifier(loss="log_loss", alpha=0.1, max_iter=5000, tol=1e-9, random_state=0)
    train = uw.Examples(x, y, weights=ABSENT)
    model = uw.explainable(estimator.fit(x, y, sample_weight=ABSENT), train)
    assert model.problem(train).ridge == pytest.approx(0.1 * N)
    scores = uw.Influence().fit(model, train).attribute(train.take([2]))
    assert (scores.values[:, ABSENT == 0] == 0).all() and np.abs(scores.values).max() > 0


def test_a_class_of_weight_zero_alone_is_not_missed() -> None:
    x, y = data(3)
    weights = np.where(y == 1, 0.0, 1.0)
    estimator = LogisticRegression(**TIGHT).fit(x, y, weights)
    train = uw.Examples(x, y, weights=weights)
    model = uw.explainable(estimator, train)
    again, present_rows = (
        model.retrain(train, np.ones(N)),
        train.take(weights > 0),
    )  # the intercept of class 1 has no optimum
    np.testing.assert_allclose(again.measure(present_rows), model.measure(present_rows), atol=1e-5)
    with pytest.raises(ValueError, match="none of class 0 is left"):
        model.retrain(train, np.where(y == 0, 0.0, 1.0))

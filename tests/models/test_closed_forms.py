"""Estimators with a closed form: scores without training equal those of real refits by scikit-learn."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.isotonic import IsotonicRegression
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    NearestCentroid,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import upweight as uw

NAMES = np.array(["rome", "athens", "thebes"])
N, M = 45, 12  # training examples and queries


def rows(load: Callable[..., Any], columns: int = 30) -> tuple[Any, Any]:
    x, y = load(return_X_y=True)
    order = np.random.default_rng(5).permutation(len(y))[: N + M]
    return x[order][:, :columns], y[order]


def named(load: Callable[..., Any], columns: int = 30) -> tuple[Any, Any]:
    x, y = rows(load, columns)
    return x, NAMES[y]


def counts() -> tuple[Any, Any]:
    x, y = named(load_wine)
    return np.round(3 * (x - x.min(0)) / np.ptp(x, axis=0)), y


def sparse_counts() -> tuple[Any, Any]:
    x, y = counts()
    return sparse.csr_matrix(x), y


IRIS, WINE, CANCER = (lambda: named(load_iris)), (lambda: named(load_wine)), (lambda: rows(load_breast_cancer, 4))
DIABETES = lambda: rows(load_diabetes)  # noqa: E731
TWO_TARGETS = lambda: (DIABETES()[0], np.stack([DIABETES()[1], DIABETES()[0][:, 0]], axis=1))  # noqa: E731
LDA, QDA = LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
PRIORS = [0.2, 0.3, 0.5]
CASES = {
    "gaussian": (GaussianNB(), WINE),
    "gaussian with priors and much added variance": (GaussianNB(priors=PRIORS, var_smoothing=0.1), IRIS),
    "multinomial": (MultinomialNB(alpha=0.3), counts),
    "multinomial on sparse rows": (MultinomialNB(fit_prior=False), sparse_counts),
    "complement": (ComplementNB(), counts),
    "complement, normalised": (ComplementNB(norm=True, alpha=0.1), sparse_counts),
    "bernoulli": (BernoulliNB(binarize=1.0, class_prior=PRIORS), counts),
    "categorical": (CategoricalNB(min_categories=4), counts),
    "linear discriminant": (LDA(), CANCER),
    "linear discriminant by lsqr": (LDA(solver="lsqr", priors=PRIORS), IRIS),
    "linear discriminant, shrunk": (LDA(solver="lsqr", shrinkage=0.2), WINE),
    "linear discriminant by Ledoit and Wolf": (LDA(solver="eigen", shrinkage="auto"), IRIS),
    "quadratic discriminant": (QDA(), IRIS),
    "quadratic discriminant, regularised": (QDA(reg_param=0.1, priors=PRIORS), lambda: named(load_wine, 5)),
    "neighbours": (KNeighborsClassifier(3), WINE),
    "weighted neighbours": (KNeighborsClassifier(4, weights="distance", p=1), CANCER),
    "neighbours for a target": (KNeighborsRegressor(4), DIABETES),
    "radius neighbours": (RadiusNeighborsClassifier(0.7, outlier_label="rome"), IRIS),
    "radius neighbours, outliers to the largest class": (
        RadiusNeighborsClassifier(0.5, weights="distance", outlier_label="most_frequent"),
        IRIS,
    ),
    "radius neighbours for a target": (RadiusNeighborsRegressor(0.16), DIABETES),
    "weighted radius neighbours for two targets": (RadiusNeighborsRegressor(0.2, weights="distance"), TWO_TARGETS),
    "nearest centroid": (NearestCentroid(), WINE),
    "shrunken centroids": (NearestCentroid(shrink_threshold=0.4, priors="empirical"), IRIS),
    "gaussian process": (GaussianProcessRegressor(RBF(0.2), alpha=0.5, optimizer=None), DIABETES),
    "centred gaussian process for two targets": (
        GaussianProcessRegressor(RBF(0.2) + WhiteKernel(0.1), normalize_y=True, optimizer=None),
        TWO_TARGETS,
    ),
    "isotonic": (IsotonicRegression(out_of_bounds="clip"), lambda: rows(load_diabetes, 1)),
    "dummy": (DummyClassifier(), WINE),
    "dummy regressor": (DummyRegressor(), DIABETES),
    "neighbours for two targets": (KNeighborsRegressor(3, weights="distance"), TWO_TARGETS),
}
EVERY = pytest.mark.parametrize("name", CASES)


class Fitted:
    """An estimator fitted on some rows, as scikit-learn itself does it, and its loss on the queries."""

    def __init__(self, name: str, weights: Any = None) -> None:
        self.estimator, data = CASES[name]
        x, y = data()
        self.weights = weights
        self.train = uw.Examples(x[:N], y[:N], weights=weights, ids=[f"r{i}" for i in range(N)])
        self.queries = uw.Examples(x[N:], y[N:])
        self.takes_weights = "sample_weight" in signature(self.estimator.fit).parameters

    def fit(self, kept: Any) -> Any:
        x, y, estimator = self.train.x, self.train.y, clone(self.estimator)
        if self.weights is None:
            return estimator.fit(x[kept], y[kept])
        if self.takes_weights:
            return estimator.fit(x[kept], y[kept], sample_weight=self.weights[kept])
        copies = np.repeat(np.flatnonzero(kept), self.weights[kept].astype(int))
        return estimator.fit(x[copies], y[copies])

    def measured(self, kept: Any) -> np.ndarray:
        estimator, x, y = self.fit(kept), self.queries.x, self.queries.y
        if not hasattr(estimator, "classes_"):
            return -0.5 * ((estimator.predict(x) - y) ** 2).reshape(M, -1).sum(axis=1)
        if isinstance(estimator, KNeighborsClassifier | RadiusNeighborsClassifier | DummyClassifier):
            return -0.5 * ((estimator.predict_proba(x) - (y[:, None] == estimator.classes_)) ** 2).sum(axis=1)
        position = np.searchsorted(estimator.classes_, y)
        return np.take_along_axis(estimator.predict_log_proba(x), position[:, None], axis=1)[:, 0]

    def without(self, *removed: int) -> np.ndarray:
        return self.measured(~np.isin(np.arange(N), removed))

    @property
    def fit_of_all(self) -> Any:
        estimator = self.fit(np.ones(N, bool))
        return uw.LeaveOneOut().fit(uw.explainable(estimator, self.train), self.train)


@pytest.mark.sweep(3)
@EVERY
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_scores_without_training_equal_real_refits(name: str, weighted: bool) -> None:
    case = Fitted(name, np.arange(N) % 4.0 if weighted else None)
    scores = case.fit_of_all.attribute(case.queries)
    base, removed = case.without(), [i for i in range(0, N, 4) if not weighted] or list(range(1, N, 4))
    actual = np.stack([base - case.without(i) for i in removed], axis=1)
    assert scores.unit == "EFFECT"
    np.testing.assert_allclose(scores.measured, base, rtol=1e-6, atol=1e-9)
    assert np.abs(scores.values[:, removed] - actual).max() <= 1e-7 * max(np.abs(actual).max(), np.abs(base).max())
    if weighted:
        assert not scores.values[:, ::4].any()  # rows of weight 0


@pytest.mark.sweep(3)
@EVERY
def test_a_group_is_removed_exactly(name: str) -> None:
    case = Fitted(name)
    effects = case.fit_of_all.remove({"some": ["r3", "r4", "r20"]}, case.queries).values[:, 0]
    base = case.without()
    assert np.abs(effects - (base - case.without(3, 4, 20))).max() <= 1e-7 * np.abs(base).max()


@pytest.mark.sweep(3)
@EVERY
def test_nothing_is_trained(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Fitted(name)
    model = uw.explainable(case.fit(np.ones(N, bool)), case.train)

    def fit(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(type(case.estimator), "fit", fit)
    fitted = uw.LeaveOneOut().fit(model, case.train)
    own = fitted.attribute(case.train.take([1, 2, 3])).values[:, 1:4].diagonal()
    np.testing.assert_allclose(fitted.self_influence().values[0, 1:4], own, rtol=1e-9, atol=1e-12)


@EVERY
def test_other_training_data_are_refused(name: str) -> None:
    case = Fitted(name)
    estimator = case.fit(np.arange(N) < N - 9)
    with pytest.raises(ValueError, match=r"expected the data that \w+ was fitted on"):
        uw.explainable(estimator, case.train)
    model = uw.explainable(case.fit(np.ones(N, bool)), case.train)
    with pytest.raises(ValueError, match=r"expected the data that \w+ was fitted on"):
        uw.LeaveOneOut().fit(model, case.train.take(np.arange(N - 9)))


def test_explain_confirms_the_scores_by_retraining_the_estimator_itself() -> None:
    case = Fitted("gaussian")
    explanation = uw.explain(uw.explainable(case.fit(np.ones(N, bool)), case.train), case.train, case.queries)
    assert explanation.check is not None
    assert explanation.check.verdict == "agrees"
    assert explanation.check.of("one").slope == pytest.approx(1.0, abs=1e-6)
    assert explanation.warnings == []


def test_frames_pipelines_text_labels_and_columns_of_labels_are_taken() -> None:
    x, y = WINE()
    frame = pd.DataFrame(x, columns=[f"c{j}" for j in range(x.shape[1])], index=[f"w{i}" for i in range(len(y))])
    estimator = make_pipeline(StandardScaler(), GaussianNB()).fit(frame[:N], y[:N])
    train = uw.Examples(frame[:N], y[:N, None])
    model = uw.explainable(estimator, train, measure=uw.Probability(of="rome"))
    scores = uw.LeaveOneOut().fit(model, train).attribute(uw.Examples(frame[N:]))
    steps = estimator[:-1]
    refit = GaussianNB().fit(steps.transform(frame[1:N]), y[1:N])
    rome = list(refit.classes_).index("rome")
    actual = estimator.predict_proba(frame[N:])[:, rome] - refit.predict_proba(steps.transform(frame[N:]))[:, rome]
    np.testing.assert_allclose(scores.values[:, 0], actual, atol=1e-9)
    assert set(scores.predictions.predicted) <= set(NAMES)


@pytest.mark.parametrize("estimator", [GaussianNB(), LDA(), KNeighborsClassifier(3)])
def test_the_only_example_of_a_class_has_no_score_and_a_warning(estimator: Any) -> None:
    x, y = IRIS()
    y[0] = "sparta"
    train = uw.Examples(x[:N], y[:N])
    fitted = uw.LeaveOneOut().fit(uw.explainable(estimator.fit(x[:N], y[:N]), train), train)
    scores = fitted.attribute(uw.Examples(x[N:], y[N:]))
    assert np.isnan(scores.values[:, 0]).all()
    assert np.isfinite(scores.values[:, 1:]).all()
    assert scores.diagnostics["undefined"] == [0]
    assert any("0 has no score (NaN)" in warning for warning in scores.diagnostics["warnings"])
    with pytest.raises(ValueError, match="none of class 'sparta' is left"):
        fitted.remove({"g": [0, 1]}, uw.Examples(x[N:], y[N:]))


def test_equally_near_neighbours_are_reported_and_others_are_not() -> None:
    x, y = WINE()
    queries = uw.Examples(x[N:], y[N:], ids=[f"q{i}" for i in range(M)])
    warnings = []
    for inputs in (x[:N], np.concatenate([x[: N - 8], np.repeat(x[N : N + 1] + 9.0, 8, axis=0)])):
        train = uw.Examples(inputs, y[:N])
        model = uw.explainable(KNeighborsClassifier(3).fit(inputs, y[:N]), train)
        warnings.append(uw.LeaveOneOut().fit(model, train).attribute(queries).diagnostics["warnings"])
    assert warnings[0] == []
    assert "the first is 'q0') several training examples are equally near" in warnings[1][0]


def test_an_example_that_alone_holds_the_last_category_has_no_score() -> None:
    x, y = counts()
    x[:, 0] = np.where(np.arange(len(x)) == 7, 9, x[:, 0])
    train = uw.Examples(x[:N], y[:N])
    fitted = uw.LeaveOneOut().fit(uw.explainable(CategoricalNB(min_categories=4).fit(x[:N], y[:N]), train), train)
    assert fitted.refused.keys() == {7}
    assert "last category 9 of column 0" in fitted.refused[7]


@pytest.mark.parametrize(
    ("estimator", "match"),
    [
        (KNeighborsClassifier(metric="precomputed"), "metric='precomputed'"),
        (NearestCentroid(metric="manhattan"), "metric='euclidean', got 'manhattan'"),
        (DummyClassifier(strategy="stratified"), "got 'stratified', whose predictions are drawn at random"),
        (QDA(), None),
        (LDA(solver="lsqr", covariance_estimator=__import__("sklearn.covariance").covariance.OAS()), "covariance_est"),
    ],
)
def test_options_without_a_closed_form_are_explained_by_refits_and_named_and_others_are_refused(
    estimator: Any, match: str | None
) -> None:
    x, y = IRIS()
    x = np.abs(x[:N] @ x[:N].T) if match and "precomputed" in match else x[:N]
    estimator.fit(x, y[:N])
    if match is None:
        uw.explainable(estimator, uw.Examples(x, y[:N]))
        return
    if "precomputed" not in match and "random" not in match:
        assert match in uw.explainable(estimator, uw.Examples(x, y[:N])).notes[0]
        return
    with pytest.raises(ValueError, match=match):
        uw.explainable(estimator, uw.Examples(x, y[:N]))


def test_one_class_missing_values_and_weights_that_are_no_copies_are_refused() -> None:
    x, y = IRIS()
    with pytest.raises(ValueError, match="two classes or more, got 1"):
        uw.explainable(GaussianNB().fit(x, np.zeros(len(x))), uw.Examples(x, np.zeros(len(x))))
    train = uw.Examples(x, y)
    model = uw.explainable(GaussianNB().fit(x, y), train)
    holes = x.copy()
    holes[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        uw.LeaveOneOut().fit(model, train.replaced(x=holes))
    with pytest.raises(ValueError, match=r"whole number of copies, got 0\.5"):
        uw.explainable(LDA().fit(x, y), uw.Examples(x, y, weights=np.full(len(y), 0.5)))


def test_isotonic_regression_without_clipping_keeps_the_ends_of_its_range() -> None:
    x, y = rows(load_diabetes, 1)
    train = uw.Examples(x[:N], y[:N])
    model = uw.explainable(IsotonicRegression().fit(train.x, train.y), train)
    fitted = uw.LeaveOneOut().fit(model, train)
    column = train.x[:, 0]
    ends = [np.flatnonzero(column == end) for end in (column.min(), column.max())]
    assert fitted.refused.keys() == {int(where[0]) for where in ends if len(where) == 1} != set()
    with pytest.raises(ValueError, match=r"the range of the training rows.*fit it with out_of_bounds='clip'"):
        fitted.attribute(uw.Examples(np.array([[9.0]]), [0.0]))


def test_predictions_that_are_not_the_class_of_the_best_score_are_reported_and_others_are_not() -> None:
    warnings = []
    for scale in (100.0, 1.0):
        x, y = IRIS()
        x = x * np.array([scale, 1.0, 1.0, 1.0])  # predict takes distances as they are, scores divide by the spread
        train = uw.Examples(x[:N], y[:N])
        fitted = uw.LeaveOneOut().fit(uw.explainable(NearestCentroid().fit(x[:N], y[:N]), train), train)
        warnings.append(fitted.attribute(uw.Examples(x, y)).diagnostics["warnings"])
    assert "NearestCentroid predicts another class than its own scores rank first" in warnings[0][0]
    x, y = WINE()
    train = uw.Examples(x[:N], y[:N])
    for estimator in (GaussianNB(), LDA(), KNeighborsClassifier(3)):
        fitted = uw.LeaveOneOut().fit(uw.explainable(estimator.fit(x[:N], y[:N]), train), train)
        assert fitted.attribute(uw.Examples(x[N:], y[N:])).diagnostics["warnings"] == []


@pytest.mark.parametrize("estimator", [DecisionTreeRegressor(max_depth=3, random_state=0), DecisionTreeClassifier()])
def test_a_single_tree_is_read_as_a_forest_of_one(estimator: Any) -> None:
    x, y = DIABETES() if isinstance(estimator, DecisionTreeRegressor) else WINE()
    train, queries = uw.Examples(x[:N], y[:N]), uw.Examples(x[N:], y[N:])
    estimator.fit(train.x, train.y)
    values = uw.ForestWeights().fit(uw.explainable(estimator, train, measure=lambda z, _: z[:, 0]), train)
    values = values.attribute(queries).values
    votes = y[:N] if hasattr(y, "dtype") and y.dtype.kind == "f" else (y[:N] == estimator.classes_[0]).astype(float)
    leaves, own = estimator.apply(train.x), estimator.apply(queries.x)
    for q in range(M):
        inside = np.flatnonzero(leaves == own[q])
        for i in inside[:3]:
            if len(inside) > 1:
                expected = votes[inside].mean() - votes[inside[inside != i]].mean()
                assert values[q, i] == pytest.approx(expected, abs=1e-9)


def test_a_query_with_one_example_within_the_radius_has_no_score_of_it() -> None:
    x = np.array([[0.0], [1.0], [1.1], [5.0], [5.1], [9.0]])
    y = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    train = uw.Examples(x, y)
    for estimator in (RadiusNeighborsClassifier(0.5), RadiusNeighborsRegressor(0.5)):
        model = uw.explainable(estimator.fit(x, y), train)
        scores = uw.LeaveOneOut().fit(model, train).attribute(uw.Examples([[9.2], [5.0]], [0, 0]))
        assert np.isnan(scores.values[0]).tolist() == [False] * 5 + [True]
        assert np.isfinite(scores.values[1]).all()
        assert "only one training example within the radius" in scores.diagnostics["warnings"][-1]
        with pytest.raises(ValueError, match="expected queries with a training example within the radius"):
            model.measure(uw.Examples([[20.0]], [0]))

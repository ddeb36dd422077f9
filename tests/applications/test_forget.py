"""Forgetting is exact for linear models and closed forms, and marked for trees and networks; never in place."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import (
    BayesianRidge,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeRegressor

import upweight as uw
from upweight.applications.membership import auc_interval, membership

ROWS, FORGOTTEN = 240, 8


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    x = 3 * rng.normal(size=(ROWS, 5)) + 5
    signal = (x - 5) @ rng.normal(size=5) / 3
    return {
        "x": x,
        "two": (signal + rng.logistic(size=ROWS) > 0).astype(int),
        "three": np.digitize(signal + rng.normal(size=ROWS), [-1, 1]),
        "number": signal + rng.normal(size=ROWS),
        "count": rng.poisson(np.exp(signal / 4)) + 0.5,
    }


def newton(**more):
    return LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=1000, **more)


def answers(estimator, x):
    for name in ("predict_proba", "decision_function", "predict"):
        if hasattr(estimator, name):
            return np.asarray(getattr(estimator, name)(x), dtype=float)
    raise AssertionError


def forgotten_and_refitted(estimator, x, y, **more):
    """(the result, the largest difference of its answers from a refit's, that of the answers before)."""
    fitted = clone(estimator).fit(x, y)
    train = uw.Examples(x, y)
    before = uw.digest(fitted)
    result = uw.forget(uw.explainable(fitted, train, at=more.pop("at", None)), train, range(FORGOTTEN), **more)
    assert uw.digest(fitted) == before
    assert type(result.estimator) is type(fitted)
    refit = clone(estimator).fit(x[FORGOTTEN:], y[FORGOTTEN:])
    new, old, target = (answers(one, x) for one in (result.estimator, fitted, refit))
    return result, np.abs(new - target).max(), np.abs(old - target).max()


@pytest.mark.parametrize("steps", [(), (PCA(3), StandardScaler())], ids=len)
@pytest.mark.parametrize(
    ("estimator", "target"),
    [
        (newton(), "two"),
        (newton(), "three"),
        (newton(class_weight="balanced"), "three"),
        (LinearRegression(), "number"),
        (Ridge(alpha=2, fit_intercept=False), "number"),
        (RidgeClassifier(), "three"),
        (PoissonRegressor(solver="newton-cholesky", tol=1e-12, max_iter=1000), "count"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_linear_models_are_at_the_optimum_of_a_refit(table, estimator, target, steps):
    estimator = make_pipeline(*steps, estimator) if steps else estimator
    result, away, before = forgotten_and_refitted(estimator, table["x"], table[target])
    assert result.route is uw.Route.OPTIMUM and result.is_deletion and result.remembering == ()
    assert away < 1e-8
    assert before > 1e-4
    assert result.facts["gradient_norm"] < 1e-9


def test_sample_weights_stay_with_their_examples(table):
    x, y, weights = table["x"], table["two"], np.random.default_rng(1).integers(0, 4, ROWS).astype(float)
    fitted = make_pipeline(StandardScaler(), newton()).fit(x, y, logisticregression__sample_weight=weights)
    train = uw.Examples(x, y, weights=weights)
    result = uw.forget(uw.explainable(fitted, train), train, train.ids[:FORGOTTEN])
    refit = clone(fitted).fit(x[FORGOTTEN:], y[FORGOTTEN:], logisticregression__sample_weight=weights[FORGOTTEN:])
    np.testing.assert_allclose(result.estimator.predict_proba(x), refit.predict_proba(x), atol=1e-8)


def test_columns_that_only_forgotten_examples_have_are_gone():
    texts = ["secret code"] * 3 + [f"word{i % 7} other{i % 5}" for i in range(60)]
    y = np.array([1] * 3 + [int(i % 7 > 2) for i in range(60)])
    fitted = make_pipeline(TfidfVectorizer(), newton()).fit(texts, y)
    train = uw.Examples(texts, y)
    result = uw.forget(uw.explainable(fitted, train), train, [0, 1, 2])
    assert "secret" in fitted[0].vocabulary_ and "secret" not in result.estimator[0].vocabulary_
    refit = clone(fitted).fit(texts[3:], y[3:])
    np.testing.assert_allclose(result.estimator.predict_proba(texts), refit.predict_proba(texts), atol=1e-8)


def test_data_frames_keep_their_columns_and_lost_categories_are_forgotten(table):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"kind": ["rare"] * 4 + ["a", "b"] * (ROWS // 2 - 2), "size": table["x"][:, 0]})
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["kind"]), (StandardScaler(), ["size"]))
    fitted = make_pipeline(columns, newton()).fit(frame, table["two"])
    train = uw.Examples(frame, table["two"])
    result = uw.forget(uw.explainable(fitted, train), train, [0, 1, 2, 3])
    refit = clone(fitted).fit(frame.iloc[4:], table["two"][4:])
    assert result.estimator[-1].coef_.shape[1] == fitted[-1].coef_.shape[1] - 1
    np.testing.assert_allclose(result.estimator.predict_proba(frame), refit.predict_proba(frame), atol=1e-8)
    plain = newton().fit(frame[["size"]], table["two"])
    alone = uw.Examples(frame[["size"]], table["two"])
    assert list(uw.forget(uw.explainable(plain, alone), alone, [0]).estimator.feature_names_in_) == ["size"]


def test_more_columns_than_examples():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 90))
    y = (x[:, 0] + rng.normal(size=40) > 0).astype(int)
    result, away, before = forgotten_and_refitted(newton(), x, y)
    assert result.route is uw.Route.OPTIMUM
    assert away < 1e-8
    assert before > 1e-4


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    ("estimator", "target", "route"),
    [
        (GaussianNB(), "three", uw.Route.CLOSED_FORM),
        (LinearDiscriminantAnalysis(), "three", uw.Route.CLOSED_FORM),
        (KNeighborsClassifier(3, algorithm="brute"), "three", uw.Route.CLOSED_FORM),
        (GaussianProcessRegressor(alpha=0.5), "number", uw.Route.CLOSED_FORM),
        (Lasso(alpha=0.01), "number", uw.Route.REFIT),
        (HuberRegressor(max_iter=1000), "number", uw.Route.REFIT),
        (BayesianRidge(), "number", uw.Route.REFIT),
        (SVC(), "two", uw.Route.REFIT),
        (LogisticRegressionCV(Cs=[0.1, 1.0]), "two", uw.Route.REFIT),
        (SGDClassifier(loss="log_loss", random_state=0), "two", uw.Route.REFIT),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "",
)
def test_what_has_a_closed_form_or_no_shorter_way_is_what_a_refit_gives(table, estimator, target, route):
    pipeline = make_pipeline(StandardScaler(), estimator)
    result, away, before = forgotten_and_refitted(
        pipeline,
        table["x"],
        table[target],
        at="optimum" if isinstance(estimator, SGDClassifier | BayesianRidge) else None,
    )
    assert result.route is route and result.is_deletion
    assert away < 1e-9
    assert before > 1e-9


def test_leaf_values_are_those_of_the_remaining_examples_in_the_same_leaves(table):
    x, y = table["x"], table["number"]
    fitted = DecisionTreeRegressor(max_depth=3, random_state=0).fit(x, y)
    train = uw.Examples(x, y)
    result = uw.forget(uw.explainable(fitted, train), train, range(FORGOTTEN))
    leaves = fitted.apply(x)
    for leaf in np.unique(leaves):
        inside = (leaves == leaf) & (np.arange(ROWS) >= FORGOTTEN)
        np.testing.assert_allclose(result.estimator.predict(x[leaves == leaf]), y[inside].mean())
    assert not result.is_deletion and "No deletion" in result.sentence
    assert result.facts["trees_split_otherwise"] in (0, 1)


@pytest.mark.parametrize(
    ("estimator", "target"),
    [
        (GradientBoostingClassifier(n_estimators=8, random_state=0), "two"),
        (GradientBoostingClassifier(n_estimators=8, random_state=0), "three"),
        (HistGradientBoostingRegressor(max_iter=8, random_state=0), "number"),
        (RandomForestClassifier(n_estimators=8, random_state=0), "three"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_written_trees_predict_what_their_model_measures(table, estimator, target):
    x, y = table["x"], table[target]
    pipeline = make_pipeline(StandardScaler(), estimator).fit(x, y)
    train = uw.Examples(x, y)
    model = uw.explainable(pipeline, train)
    result = uw.forget(model, train, range(FORGOTTEN), compare=False)
    assert result.route is uw.Route.FIXED_STRUCTURE
    assert [step.remembers is None for step in result.steps] == [False, False]
    own = result.model.predict(train)
    expected = result.estimator.predict(x) if own.probabilities is None else result.estimator.predict_proba(x)
    np.testing.assert_allclose(own.predicted if own.probabilities is None else own.probabilities, expected, atol=1e-6)
    removal = (
        uw.LeafRefit().fit(model, train).remove({"g": list(range(FORGOTTEN))}, train)
        if "Boosting" in type(estimator).__name__
        else None
    )
    if removal is not None:
        np.testing.assert_allclose(model.measure(train) - result.model.measure(train), removal.values[:, 0], atol=1e-9)
    assert uw.forget(model, train, range(FORGOTTEN), refit=True).is_deletion


def test_trees_of_lightgbm_and_what_cannot_be_written(table):
    lightgbm = pytest.importorskip("lightgbm")
    x, y = table["x"], table["three"]
    fitted = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(x, y)
    train, before = uw.Examples(x, y), fitted.predict_proba(x)
    result = uw.forget(uw.explainable(fitted, train), train, range(FORGOTTEN), compare=False)
    own = result.model.predict(train).probabilities
    np.testing.assert_allclose(result.estimator.predict_proba(x), own, atol=1e-9)
    np.testing.assert_array_equal(fitted.predict_proba(x), before)
    sampled = GradientBoostingClassifier(n_estimators=5, subsample=0.5, random_state=0).fit(x, y)
    refitted = uw.forget(uw.explainable(sampled, train), train, range(FORGOTTEN))
    assert refitted.route is uw.Route.REFIT and "subsample" in refitted.diagnostics["notes"][0]


@pytest.fixture(scope="module")
def network(table):
    torch = pytest.importorskip("torch")

    def loss(net, batch):
        return torch.nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")

    train = uw.Examples(table["x"].astype(np.float32) - 5, table["three"])
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    recipe = uw.Training(optimiser="sgd", lr=0.2, epochs=40, batch_size=ROWS, weight_decay=1e-2)
    return uw.TorchModel.trained(net, loss, train, training=recipe), train


def test_a_step_of_a_network_is_nearer_to_retraining_and_is_not_called_a_deletion(network):
    model, train = network
    before = uw.digest(model.network.net)
    result = uw.forget(model, train, range(24))
    assert uw.digest(model.network.net) == before
    assert type(result.estimator) is type(model.network.net)
    assert result.route is uw.Route.STEP and not result.is_deletion and not result.certificate["deletion"]
    own = result.distances[0]
    assert own.part == "forgotten" and own.after < own.before
    with pytest.raises(ValueError, match=r"No deletion.*refit=True"):
        result.require_deletion()
    again = uw.forget(model, train, range(24), refit=True).require_deletion()
    retrained = uw.retrain(model, train, (np.arange(ROWS) >= 24).astype(float))
    np.testing.assert_array_equal(again.model.parameters, retrained.parameters)


def test_what_else_remembers_is_named(table):
    frozen = pytest.importorskip("sklearn.frozen")
    x, y = table["x"], table["two"]
    train = uw.Examples(x, y)
    search = GridSearchCV(newton(), {"C": [0.1, 1.0]}, cv=2).fit(x, y)
    result = uw.forget(uw.explainable(search, train), train, [0])
    assert not result.is_deletion and "GridSearchCV chose" in result.remembering[0].remembers
    assert uw.forget(uw.refittable(search, train), train, [0]).is_deletion
    scaler = frozen.FrozenEstimator(StandardScaler().fit(x))
    kept = uw.forget(uw.explainable(make_pipeline(scaler, newton()).fit(x, y), train), train, [0])
    assert [step.name for step in kept.remembering] == ["frozenestimator"]
    with pytest.raises(ValueError, match=r"remembers them.*Fit these parts"):
        kept.require_deletion()


def test_comparison_and_membership(table):
    x, y = table["x"], table["two"]
    train, unseen = uw.Examples(x[:160], y[:160]), uw.Examples(x[150:], y[150:])
    model = uw.explainable(newton().fit(train.x, train.y), train)
    result = uw.forget(model, train, range(40), unseen=unseen, compare=True)
    assert "10 unseen examples are copies" in result.diagnostics["warnings"][0]
    assert all(distance.after < 1e-8 < distance.before for distance in result.distances)
    assert [check.model for check in result.membership] == ["before", "after", "retrained"]
    assert result.to_pandas()["name"].tolist() == [step.name for step in result.steps]
    losses = -np.r_[model.measure(train.take(range(40))), model.measure(unseen.take(range(10, len(unseen))))]
    is_forgotten = np.r_[np.ones(40), np.zeros(len(unseen) - 10)]
    assert result.membership[0].auc == pytest.approx(roc_auc_score(is_forgotten, -losses))
    for check in result.membership:
        assert check.interval[0] < check.auc < check.interval[1]


def test_intervals_of_membership():
    low, high = auc_interval(1.0, 30, 30)
    assert 0.85 < low < 1 and high == 1  # a perfect separation of few examples is not certain
    rng = np.random.default_rng(0)
    covered = [membership("before", rng.normal(size=40), rng.normal(size=60)).interval for _ in range(300)]
    assert np.mean([low <= 0.5 <= high for low, high in covered]) > 0.92


def test_the_certificate_is_the_same_each_time_and_other_files_are_kept(table, tmp_path):
    x, y = table["x"], table["two"]
    train, path = uw.Examples(x, y), tmp_path / "certificate.json"
    model = uw.explainable(make_pipeline(StandardScaler(), newton()).fit(x, y), train)
    result = uw.forget(model, train, [3, 1, 2])
    first = result.save_certificate(path).read_bytes()
    assert uw.forget(model, train, [1, 2, 3]).save_certificate(path).read_bytes() == first
    assert json.loads(first)["digests"]["estimator_after"] == uw.digest(result.estimator)
    assert result.as_dict()["ids"] == [1, 2, 3] and len(result.remaining) == ROWS - 3
    path.write_text('{"other": 1}')
    with pytest.raises(ValueError, match="not a certificate"):
        result.save_certificate(path)


def test_bad_requests_are_refused_in_a_sentence(table, network):
    x, y = table["x"], table["two"]
    train = uw.Examples(x, y)
    model = uw.explainable(newton().fit(x, y), train)
    with pytest.raises(KeyError, match="no example has the id 9999"):
        uw.forget(model, train, [9999])
    with pytest.raises(ValueError, match="removing all leaves nothing"):
        uw.forget(model, train, train.ids)
    with pytest.raises(ValueError, match="removing none changes nothing"):
        uw.forget(model, train, [])
    with pytest.raises(ValueError, match="none of class 1 is left"):
        uw.forget(model, train, np.flatnonzero(y == 1))
    with pytest.raises(TypeError, match=r"expected ids as a list, got 3; pass \[3\]"):
        uw.forget(model, train, 3)
    with pytest.raises(TypeError, match="expected ids as a list"):
        uw.forget(model, train, "17")
    with pytest.raises(ValueError, match="unseen examples with labels"):
        uw.forget(model, train, [0], unseen=uw.Examples(x))
    with pytest.raises(ValueError, match="not in the training set"):
        uw.forget(model, train, [0], unseen=train)
    with pytest.raises(TypeError, match="step= is for networks"):
        uw.forget(model, train, [0], step=uw.Influence())
    with pytest.raises(TypeError, match="expected step= to be an Influence"):
        uw.forget(*network, [0], step=uw.GradDot())
    untrained = uw.TorchModel(network[0].network.net, network[0].network.loss)
    with pytest.raises(TypeError, match="does not say how its net was trained"):
        uw.forget(untrained, network[1], [0], refit=True)
    assert "cannot be retrained" in uw.forget(untrained, network[1], [0]).diagnostics["notes"][-1]

"""scikit-learn's linear models: predictions, losses, retraining and influence, compared with scikit-learn itself."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
)
from sklearn.metrics import log_loss, mean_tweedie_deviance
from sklearn.svm import SVC, LinearSVC

import upweight as uw
from support.scikit_learn_versions import logistic_regression_cv
from support.trained_estimators import CASES, NUMBERS, THREE, TIGHT, TWO, WORDS, mixed, outputs, trained

pytestmark = pytest.mark.filterwarnings("ignore:Liblinear failed to converge")
EVERY = pytest.mark.parametrize("name", CASES)
SMOOTH = pytest.mark.parametrize("name", [n for n, c in CASES.items() if not c.hinge])
HINGE = pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.hinge])


def ones(train, *removed):
    weights = np.ones(len(train))
    weights[list(removed)] = 0.0
    return weights


def close(name):
    """The largest accepted relative difference of two fits of one problem."""
    return 1e-2 if CASES[name].loose else 1e-3 if CASES[name].hinge else 1e-5


def largest(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@EVERY
def test_retraining_on_everything_reproduces_the_model(name):
    t = trained(name)
    retrained = t.model.retrain(t.train, ones(t.train))
    assert largest(retrained.parameters, t.model.parameters) < close(name)


@pytest.mark.sweep(3)
@EVERY
@pytest.mark.parametrize("removed", [1, 30])
def test_retraining_with_weights_0_is_fitting_to_the_other_rows(name, removed):
    t = trained(name).asking(mixed)
    rows = np.arange(removed, len(t.train))
    without = t.model.retrain(t.train, ones(t.train, *range(removed)))
    assert largest(without.measure(t.queries), mixed(outputs(t.refitted(rows), t.queries.x))) < 2 * close(name)


@pytest.mark.sweep(3)
@EVERY
def test_a_retrained_model_has_predictions_of_its_own(name):
    t = trained(name)
    retrained = t.model.retrain(t.train, ones(t.train, *range(30)))
    predictions, estimator = retrained.predict(t.queries), t.refitted(np.arange(30, len(t.train)))
    expected = estimator.predict(t.queries.x)
    if predictions.classes:
        assert np.mean(np.array(predictions.predicted) == expected) > 0.96
    else:
        np.testing.assert_allclose(predictions.predicted, expected, rtol=1e-3, atol=1e-3)
    if predictions.probabilities is not None:
        np.testing.assert_allclose(predictions.probabilities, estimator.predict_proba(t.queries.x), atol=close(name))


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if not c.weighted and not c.loose])
def test_a_weight_of_two_is_the_example_twice(name):
    t = trained(name).asking(mixed)
    weights = ones(t.train)
    weights[:20] = 2.0
    twice = t.refitted(np.concatenate([np.arange(len(t.train)), np.arange(20)]))
    measured = t.model.retrain(t.train, weights).measure(t.queries)
    assert largest(measured, mixed(outputs(twice, t.queries.x))) < 2 * close(name)


def against_retraining(t, ids):
    scores = uw.Influence().fit(t.model, t.train).attribute(t.queries)
    base = t.model.retrain(t.train, ones(t.train)).measure(t.queries)
    truth = [base - t.model.retrain(t.train, ones(t.train, i)).measure(t.queries) for i in ids]
    return scores.values[:, ids].ravel(), np.array(truth).T.ravel()


def chosen(t):
    """The examples with the largest influence, and some with little."""
    strong = np.argsort(-np.abs(uw.Influence().fit(t.model, t.train).attribute(t.queries).values).sum(axis=0))
    return [*strong[:8], *strong[8::16]]


@pytest.mark.sweep(3)
@SMOOTH
def test_influence_of_a_smooth_loss_is_the_effect_of_retraining(name):
    t = trained(name)
    estimated, true = against_retraining(t, chosen(t))
    assert np.corrcoef(estimated, true)[0, 1] >= 0.9999
    assert (estimated @ true) / (estimated @ estimated) == pytest.approx(1.0, abs=0.005)


@pytest.mark.sweep(2)
@HINGE
def test_influence_of_a_hinge_is_close_to_the_effect_of_retraining(name):
    t = trained(name)
    estimated, true = against_retraining(t, chosen(t))
    assert np.corrcoef(estimated, true)[0, 1] >= 0.99
    assert (estimated @ true) / (estimated @ estimated) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", ["softmax", "ridge", "poisson", "squared_hinge", "logistic_balanced"])
def test_influence_is_the_effect_of_fitting_scikit_learn_without_the_example(name):
    t = trained(name).asking(mixed)
    scores = uw.Influence().fit(t.model, t.train).attribute(t.queries).values
    ids, whole = [0, 17, 55, 90], mixed(outputs(t.estimator, t.queries.x))
    true = np.stack(
        [whole - mixed(outputs(t.refitted(np.delete(np.arange(len(t.train)), i)), t.queries.x)) for i in ids]
    )
    np.testing.assert_allclose(scores[:, ids].T, true, atol=1e-2 * np.abs(true).max())
    assert np.corrcoef(scores[:, ids].T.ravel(), true.ravel())[0, 1] >= 0.9999


def test_svc_with_rows_of_weight_0_has_the_scores_of_svc_without_them():
    x, y = TWO
    weights = np.where(np.arange(len(y)) % 5 == 0, 0.0, 1.0)
    train, weighted = uw.Examples(x, y, weights=weights), np.flatnonzero(weights)
    estimator = SVC(tol=1e-9, gamma=0.1).fit(x, y, sample_weight=weights)
    fewer = uw.Examples(x[weighted], y[weighted])
    models = uw.explainable(estimator, train), uw.explainable(SVC(tol=1e-9, gamma=0.1).fit(fewer.x, fewer.y), fewer)
    scores, expected = (
        uw.Influence().fit(m, t).attribute(fewer.take(range(9))).values
        for m, t in zip(models, (train, fewer), strict=True)
    )
    np.testing.assert_allclose(scores[:, weighted], expected, atol=1e-4 * np.abs(expected).max())
    assert (scores[:, weights == 0] == 0).all()


@pytest.mark.filterwarnings("ignore:.*LogisticRegressionCV", "ignore:.*l1_ratios", "ignore:.*scoring")
@pytest.mark.parametrize(
    ("choosing", "plain", "data"),
    [
        (LogisticRegressionCV(Cs=[0.03, 0.3], class_weight="balanced", **TIGHT), LogisticRegression, WORDS),
        (logistic_regression_cv(Cs=[0.03, 0.3], **TIGHT), LogisticRegression, THREE),
        (RidgeCV(alphas=[0.5, 2.0]), Ridge, NUMBERS),
        (RidgeClassifierCV(alphas=[0.5, 2.0], class_weight="balanced"), RidgeClassifier, THREE),
    ],
    ids=["two", "three", "amounts", "least squares on classes"],
)
def test_a_choice_by_cross_validation_is_held_fixed(choosing, plain, data):
    train, queries = uw.Examples(data[0][20:], data[1][20:]), uw.Examples(data[0][:20], data[1][:20])
    chosen = clone(choosing).fit(train.x, train.y)
    name = "C" if plain is LogisticRegression else "alpha"
    setting = float(np.ravel(getattr(chosen, name + "_"))[0])
    same = plain(**{name: setting}, **{k: v for k, v in choosing.get_params().items() if k in ("class_weight", *TIGHT)})
    models = [uw.explainable(e, train) for e in (chosen, same.fit(train.x, train.y))]
    scores, expected = (uw.Influence().fit(model, train).attribute(queries).values for model in models)
    np.testing.assert_allclose(scores, expected, atol=1e-5 * np.abs(expected).max())
    assert f"{name}={setting:.4g} was chosen by cross-validation and is held" in models[0].notes[0]
    assert models[0].name == type(choosing).__name__
    without = ones(train, 3, 4)
    np.testing.assert_allclose(*(m.retrain(train, without).measure(queries) for m in models), atol=1e-6)


@EVERY
def test_outputs_are_the_estimators_own(name):
    t = trained(name).asking(mixed)
    expected = mixed(outputs(t.estimator, t.queries.x))
    np.testing.assert_allclose(t.model.measure(t.queries), expected, atol=1e-6 * np.abs(expected).max())
    shift = np.random.default_rng(0).standard_normal(len(t.model.parameters)) * 0.1
    moved = t.model.with_parameters(t.model.parameters + shift).measure(t.queries)
    np.testing.assert_allclose(t.model.measure_shifted(t.queries, shift[None])[:, 0], moved, atol=1e-9)


@EVERY
def test_predictions_are_the_estimators_own(name):
    t = trained(name)
    predictions = t.model.predict(t.queries)
    np.testing.assert_array_equal(np.array(predictions.predicted), t.estimator.predict(t.queries.x))
    if hasattr(t.estimator, "predict_proba"):
        np.testing.assert_array_equal(predictions.probabilities, t.estimator.predict_proba(t.queries.x))
    else:
        assert predictions.probabilities is None
    assert list(predictions.classes) == (t.estimator.classes_.tolist() if hasattr(t.estimator, "classes_") else [])


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if hasattr(c.estimator, "predict_proba")])
def test_probability_and_margin_come_from_predict_proba(name):
    t = trained(name)
    p = t.estimator.predict_proba(t.queries.x)
    for place, label in enumerate(t.estimator.classes_):
        measured = t.asking(uw.Probability(of=label)).model.measure(t.queries)
        np.testing.assert_allclose(measured, p[:, place], atol=1e-9)
    p_label = p[np.arange(len(p)), np.searchsorted(t.estimator.classes_, t.queries.y)]
    margin = t.asking(uw.Margin()).model.measure(t.queries)
    if name != "sgd_three":  # one classifier per class: the margin is the output less the largest other
        np.testing.assert_allclose(margin, np.log(p_label) - np.log1p(-p_label), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(margin > 0, p_label >= p.max(axis=1) if name == "sgd_three" else p_label > 0.5)


def robust_loss(est, error):
    """The loss of a Huber regression, or of a regression with a tube."""
    if hasattr(est, "outliers_"):
        u = error / est.scale_
        return est.scale_ * np.where(u < est.epsilon, u**2, 2 * est.epsilon * u - est.epsilon**2)
    return np.maximum(error - est.epsilon, 0.0) ** (2 if getattr(est, "loss", "").startswith("squared") else 1)


def true_loss(t, queries):
    """The loss of each query, from scikit-learn's own functions."""
    est, x, y = t.estimator, queries.x, queries.y
    if not hasattr(est, "classes_"):
        power = {"PoissonRegressor": 1, "GammaRegressor": 2}.get(type(est).__name__, getattr(est, "power", None))
        if hasattr(est, "epsilon"):
            return robust_loss(est, np.abs(est.predict(x) - y))
        if power is None:
            return 0.5 * ((est.predict(x) - y).reshape(len(x), -1) ** 2).sum(axis=1)
        return [mean_tweedie_deviance([a], [b], power=power) / 2 for a, b in zip(y, est.predict(x), strict=True)]
    if hasattr(est, "predict_proba"):
        pairs = zip(y, est.predict_proba(x), strict=True)
        return [log_loss([label], row[None], labels=est.classes_) for label, row in pairs]
    slack = 1.0 - est.decision_function(x) * np.where(y == est.classes_[1], 1.0, -1.0)
    if type(est).__name__ == "RidgeClassifier":
        return 0.5 * slack**2
    return np.maximum(0.0, slack) ** (2 if getattr(est, "loss", None) == "squared_hinge" else 1)


def has_metric(case):
    """Whether scikit-learn has a function for this loss: not for one classifier per class or pair of classes."""
    is_joint = len(np.unique(case.data[1])) == 2 or type(case.estimator).__name__ == "LogisticRegression"
    return is_joint or not hasattr(case.estimator, "class_weight")


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", [n for n, c in CASES.items() if has_metric(c)])
def test_the_loss_is_the_one_that_scikit_learn_computes(name):
    t = trained(name)
    atol = 1e-3 if CASES[name].hinge else 1e-6
    np.testing.assert_allclose(-t.model.measure(t.queries), true_loss(t, t.queries), atol=atol)


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    "name", ["softmax", "logistic_weighted", "ridge", "poisson", "squared_hinge", "svc_rbf", "hinge"]
)
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix, np.asfortranarray])
def test_dense_and_sparse_inputs_have_the_same_scores(name, kind):
    t = trained(name)
    weights = {} if t.train.weights is None else {"sample_weight": t.train.weights}
    train = uw.Examples(kind(t.train.x), t.train.y, weights=t.train.weights)
    estimator = clone(t.estimator).fit(train.x, train.y, **weights)
    queries = uw.Examples(kind(t.queries.x), t.queries.y)
    values = uw.Influence().fit(uw.explainable(estimator, train), train).attribute(queries).values
    expected = uw.Influence().fit(t.model, t.train).attribute(t.queries).values
    assert largest(values, expected) < (0.1 if CASES[name].hinge else 1e-4)


@pytest.mark.parametrize("name", ["softmax", "logistic_weighted", "ridge", "poisson", "squared_hinge", "svc_rbf"])
def test_single_precision_inputs_have_nearly_the_same_scores(name):
    t = trained(name)
    train = uw.Examples(t.train.x.astype(np.float32), t.train.y, weights=t.train.weights)
    queries = uw.Examples(t.queries.x.astype(np.float32), t.queries.y)
    values = uw.Influence().fit(uw.explainable(t.estimator, train), train).attribute(queries).values
    expected = uw.Influence().fit(t.model, t.train).attribute(t.queries).values
    assert largest(values, expected) < (0.05 if CASES[name].hinge else 1e-4)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, bool, np.float32])
@pytest.mark.parametrize("columns", [20, 300])
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_inputs_may_be_small_integers(dtype, columns, make):
    rng = np.random.default_rng(0)
    x = (rng.random((60, columns)) * 120 * (rng.random((60, columns)) < 0.5)).astype(dtype)
    y = np.arange(60) % 3
    estimator = LogisticRegression(C=1e-4, **TIGHT).fit(x.astype(float), y)
    scores = []
    for kind in (dtype, np.float64):
        train = uw.Examples(make(x.astype(kind)), y)
        model = uw.explainable(estimator, train)
        scores.append(uw.Influence().fit(model, train).attribute(train.take(np.arange(5))).values)
    assert largest(*scores) < 1e-4


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    ("estimator", "data"),
    [
        (LogisticRegression(C=0.1, **TIGHT), TWO),
        (LogisticRegression(C=0.1, fit_intercept=False, **TIGHT), THREE),
        (LogisticRegression(C=0.1, **TIGHT), THREE),
        (LogisticRegression(C=0.1, solver="liblinear", **TIGHT), TWO),
        (Ridge(alpha=3.0), (TWO[0], TWO[0][:, 0] * 2 + TWO[1])),
        (LinearSVC(C=0.01, random_state=0, **TIGHT), THREE),
    ],
    ids=["logistic", "softmax_no_intercept", "softmax", "liblinear", "ridge", "squared_hinge"],
)
def test_the_dual_form_is_the_primal_form(estimator, data):
    """Columns repeated until they outnumber the examples: the same inner products, in Gram coordinates."""
    x, y = data
    x, y = x[:60], y[:60]
    copies = 20
    wide = np.tile(x, copies) / np.sqrt(copies)
    scores, measured = [], []
    for inputs in (x, wide):
        train = uw.Examples(inputs[10:], y[10:])
        fitted = clone(estimator).fit(train.x, train.y)
        model = uw.explainable(fitted, train)
        queries = uw.Examples(inputs[:10], y[:10])
        scores.append(uw.Influence().fit(model, train).attribute(queries).values)
        measured.append(model.measure(queries))
        np.testing.assert_allclose(
            uw.explainable(fitted, train, measure=mixed).measure(queries), mixed(outputs(fitted, queries.x)), atol=1e-7
        )
    assert model.theta.shape[1] < wide.shape[1] > len(train)
    np.testing.assert_allclose(*measured, atol=1e-5)
    assert largest(*scores) < 1e-4


@pytest.mark.parametrize("shape", [(60, 12), (12, 60)])
def test_examples_of_weight_0_have_no_score_and_no_effect(shape):
    rng = np.random.default_rng(0)
    x, y, w = rng.standard_normal(shape), np.arange(shape[0]) % 3, np.ones(shape[0])
    w[1::4] = 0.0
    estimator = LogisticRegression(**TIGHT).fit(x, y, sample_weight=w)
    train = uw.Examples(x, y, weights=w)
    scores = uw.Influence().fit(uw.explainable(estimator, train), train).attribute(train.take([0, 1]))
    np.testing.assert_array_equal(scores.values[:, 1::4], 0.0)
    fewer = uw.Examples(x[w > 0], y[w > 0])
    expected = uw.Influence().fit(uw.explainable(estimator, fewer), fewer).attribute(train.take([0, 1]))
    assert largest(scores.values[:, w > 0], expected.values) < 1e-4


def test_a_model_can_be_retrained_on_the_same_examples_in_another_order():
    t = trained("logistic")
    model = uw.explainable(t.estimator, t.train)
    order = np.random.default_rng(0).permutation(len(t.train))
    weights = ones(t.train, *range(40))
    first = model.retrain(t.train, weights).parameters
    second = model.retrain(t.train.take(order), weights[order]).parameters
    np.testing.assert_allclose(second, first, atol=1e-7)


def test_the_estimator_is_never_changed():
    t = trained("softmax")
    before = {k: np.copy(v) for k, v in vars(t.estimator).items() if isinstance(v, np.ndarray)}
    fitted = uw.Influence().fit(uw.explainable(t.estimator, t.train), t.train)
    fitted.attribute(t.queries)
    fitted.remove({"some": t.train.ids[:9]}, t.queries)
    assert before and all(np.array_equal(v, getattr(t.estimator, k)) for k, v in before.items())


@pytest.mark.parametrize("name", ["logistic", "softmax", "poisson", "squared_hinge"])
def test_a_solver_that_stopped_early_is_followed_to_its_optimum(name):
    t = trained(name)
    weights = {} if t.train.weights is None else {"sample_weight": t.train.weights}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        early = clone(t.estimator).set_params(max_iter=4).fit(t.train.x, t.train.y, **weights)
    model = uw.explainable(early, t.train, at="optimum")
    assert model.gradient_norm(t.train) > 1e-3
    scores = uw.Influence().fit(model, t.train).attribute(t.queries)
    assert any("not at the optimum" in w for w in scores.diagnostics["warnings"])
    expected = uw.Influence().fit(t.model, t.train).attribute(t.queries)
    assert largest(scores.values, expected.values) < 1e-4
    assert not any("not at the optimum" in w for w in expected.diagnostics["warnings"])


def test_only_first_order_influence_of_the_hinge_is_that_of_the_smoothed_hinge():
    t = trained("svc_rbf")
    assert t.model.gradient_norm(t.train) is None
    scores = uw.Influence(correction=None).fit(t.model, t.train).attribute(t.queries)
    assert any(
        "scores are those of the hinge smoothed at temperature 0.001" in w for w in scores.diagnostics["warnings"]
    )
    assert uw.Influence().fit(t.model, t.train).attribute(t.queries).diagnostics["warnings"] == []


def test_a_support_vector_machine_without_examples_on_its_margin_has_scores():
    x, y = TWO
    train = uw.Examples(x, y)
    model = uw.explainable(SVC(kernel="linear", C=1e-5, tol=1e-9).fit(x, y), train)
    assert np.isfinite(uw.Influence().fit(model, train).attribute(train.take(np.arange(4))).values).all()


def test_the_training_set_of_a_hinge_is_recognised_at_every_smoothing():
    x, y = TWO
    estimator = LinearSVC(C=100.0, loss="hinge", fit_intercept=False, random_state=0, **TIGHT).fit(x, y)
    train = uw.Examples(x, y)
    sharp, soft = (uw.explainable(estimator, train, smoothing=t) for t in (1e-3, 1.0))
    assert soft.problem(train).off_optimum > 0.9 > sharp.problem(train).off_optimum
    with pytest.raises(ValueError, match="expected the data that LinearSVC was fitted on"):
        uw.explainable(estimator, uw.Examples(x, 1 - y), smoothing=1.0)

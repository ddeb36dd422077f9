"""Estimators, data, measurements and weights that are refused, and what the errors say."""

import re
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import is_classifier
from sklearn.cluster import KMeans
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    PoissonRegressor,
    Ridge,
    RidgeCV,
    SGDClassifier,
    SGDOneClassSVM,
)
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

import upweight as uw
from support.scikit_learn_versions import L1, logistic_regression_cv
from support.trained_estimators import CASES, NUMBERS, THREE, TIGHT, TWO, svc, trained

pytestmark = pytest.mark.filterwarnings("ignore:Liblinear failed to converge")
X, Y = TWO
TRAIN = uw.Examples(X, Y)


def refused(estimator, train=TRAIN, error=ValueError, match="", **more):
    with pytest.raises(error, match=match):
        uw.explainable(estimator, train, **more)


@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: make_pipeline(StandardScaler(), e)])
@pytest.mark.parametrize("estimator", [KMeans(2, n_init=1), KernelDensity(), SGDOneClassSVM()])
def test_the_error_for_what_is_no_classifier_and_no_regressor_names_what_is_supported(wrap, estimator):
    match = r"expected a classifier or a regressor.*got \w+\. Supported.*uw\.LeaveOneOut"
    refused(wrap(estimator).fit(X), error=TypeError, match=match)


def test_the_error_for_a_network_names_torch_model():
    net = pytest.importorskip("torch").nn.Linear(2, 2)
    refused(net, error=TypeError, match=r"as uw.TorchModel\(net, loss\)")


def test_cross_validation_that_ends_in_no_single_optimum_is_explained_by_refits():
    targets = np.c_[X[:, 0], Y]
    per_target = uw.explainable(RidgeCV(alpha_per_target=True).fit(X, targets), uw.Examples(X, targets))
    assert "expected one alpha for all classes or targets" in per_target.notes[0]
    folds = logistic_regression_cv(Cs=[1.0], refit=False, l1_ratios=(0,), scoring="accuracy")
    assert "means over folds" in uw.explainable(folds.fit(X, Y), TRAIN).notes[0]
    refused(LogisticRegressionCV(), match="is not fitted")


@pytest.mark.parametrize("name", CASES)
def test_an_estimator_that_is_not_fitted_is_refused(name):
    refused(CASES[name].estimator, match=r"is not fitted; call fit\(x, y\)")


@pytest.mark.parametrize(
    "call",
    [
        lambda m, s: uw.Influence().fit(m, (X, Y)),
        lambda m, s: uw.LeaveOneOut().fit(m, [(x, y) for x, y in zip(X, Y, strict=True)]),
        lambda m, s: uw.Influence().fit(m, TRAIN).attribute(X[:2]),
        lambda m, s: uw.Influence().fit(m, TRAIN).top((X, Y)),
        lambda m, s: uw.verify(m, TRAIN, X[:2], s),
        lambda m, s: uw.verify(m, (X, Y), TRAIN.take([0, 1]), s),
        lambda m, s: uw.retrain_truth(m, TRAIN, X[:2], uw.singles(TRAIN, [1])),
        lambda m, s: uw.explain(m, TRAIN, X[:2]),
        lambda m, s: uw.mislabeled(m, (X, Y)),
        lambda m, s: uw.slices(m, TRAIN, X, "label"),
        lambda m, s: uw.what_if(m, TRAIN, X[:2], uw.Change(remove=[0])),
        lambda m, s: uw.perturb(m, TRAIN, X[:2]),
    ],
)
def test_the_error_for_anything_that_is_not_examples_says_how_to_make_them(call):
    model = uw.explainable(LogisticRegression(**TIGHT).fit(X, Y), TRAIN)
    scores = uw.Influence().fit(model, TRAIN).attribute(TRAIN.take([0, 1]))
    with pytest.raises(TypeError, match=r"as upweight.Examples\(x, y\), got \w+; a data set or loader goes through"):
        call(model, scores)


def test_a_training_set_without_labels_is_refused_and_so_is_one_that_is_not_examples():
    refused(LogisticRegression().fit(X, Y), train=(X, Y), error=TypeError, match=r"expected train as upweight.Examples")
    refused(LogisticRegression().fit(X, Y), train=uw.Examples(X), match=r"no labels; pass Examples\(x, y\)")


@pytest.mark.parametrize("name", CASES)
def test_other_data_are_refused(name):
    t = trained(name)
    rng = np.random.default_rng(0)
    shuffled = uw.Examples(t.train.x, t.train.y[rng.permutation(len(t.train))], weights=t.train.weights)
    match = r"expected the data that \w+ was fitted on"
    refused(t.estimator, shuffled, match=match)
    refused(t.estimator, uw.Examples(rng.permuted(t.train.x, axis=0), t.train.y, weights=t.train.weights), match=match)


CLASSIFIERS = [n for n, c in CASES.items() if is_classifier(c.estimator)]


def relabelled(t, count):
    """The training set with another label on the first of them."""
    labels, y = t.estimator.classes_, t.train.y.copy()
    y[:count] = labels[(np.searchsorted(labels, y[:count]) + 1) % len(labels)]
    return uw.Examples(t.train.x, y, weights=t.train.weights)


@pytest.mark.parametrize("name", [n for n in CLASSIFIERS if not n.startswith("sgd")])
def test_ten_changed_labels_are_noticed(name):
    t = trained(name)
    refused(t.estimator, relabelled(t, 10), match="expected the data that")


@pytest.mark.parametrize("name", [n for n in CLASSIFIERS if n.startswith("sgd")])
def test_few_changed_labels_look_like_a_solver_that_stopped_early_and_give_a_warning(name):
    t = trained(name)
    train = relabelled(t, 10)
    fitted = uw.Influence().fit(uw.explainable(t.estimator, train), train)
    assert any("not at the optimum" in w for w in fitted.diagnostics["warnings"])
    refused(t.estimator, relabelled(t, 60), match="expected the data that")


@pytest.mark.parametrize("name", ["logistic", "softmax", "ridge_no_intercept", "gamma", "svc_rbf"])
def test_another_order_of_all_rows_is_the_same_data_except_for_svc_which_numbers_its_vectors(name):
    t = trained(name)
    reversed_rows = t.train.take(np.arange(len(t.train))[::-1])
    if name == "svc_rbf":
        refused(
            t.estimator, reversed_rows, match="do not fit its support vectors; pass the same rows in the same order"
        )
    else:
        uw.explainable(t.estimator, reversed_rows)


def test_forgotten_sample_weights_are_noticed():
    w = np.where(Y == 1, 8.0, 1.0)
    refused(LogisticRegression(**TIGHT).fit(X, Y, sample_weight=w), match="sample weights as to fit")


@pytest.mark.parametrize("columns", [5, 7])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_another_number_of_columns_is_named(columns, kind):
    x = kind(np.resize(X, (len(X), columns)))
    match = rf"expected inputs with 6 columns, as the model was fitted on, got shape \({len(X)}, {columns}\)"
    refused(LogisticRegression().fit(X, Y), uw.Examples(x, Y), match=match)
    model = uw.explainable(LogisticRegression().fit(X, Y), TRAIN)
    with pytest.raises(ValueError, match=match):
        model.measure(uw.Examples(x, Y))


def test_a_pipeline_takes_raw_inputs_and_not_the_outputs_of_its_steps():
    estimator = make_pipeline(StandardScaler(), LogisticRegression(**TIGHT)).fit(X * 5 + 3, Y)
    refused(estimator, TRAIN, match="expected the data that LogisticRegression was fitted on")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["logistic", "ridge", "svc_rbf", "sgd"])
def test_features_that_are_not_finite_are_refused(bad, name):
    t = trained(name)
    x = t.train.x.copy()
    x[7, 1] = bad
    match = "NaN or infinite values; impute"
    refused(t.estimator, uw.Examples(x, t.train.y), match=match)
    with pytest.raises(ValueError, match=match):
        t.model.measure(uw.Examples(x, t.train.y))


def test_texts_without_a_vectorizer_are_refused():
    words = np.array([["a"] * 6] * len(Y))
    refused(LogisticRegression().fit(X, Y), uw.Examples(words, Y), match="expected numeric features")


@pytest.mark.parametrize("name", ["logistic", "softmax", "svc_three", "ridge_classifier", "logistic_words"])
def test_a_query_of_an_unknown_class_has_no_loss(name):
    t = trained(name)
    unknown = ["never"] if t.train.y.dtype.kind == "U" else [17]
    query = uw.Examples(t.queries.x[:1], unknown)
    fitted = uw.Influence().fit(t.model, t.train)
    for question in (t.model.measure, fitted.attribute):
        with pytest.raises(ValueError, match=r"expected labels among .*never trained on that class"):
            question(query)


def test_queries_without_labels_have_the_measurements_that_need_none():
    t = trained("softmax")
    unlabelled = uw.Examples(t.queries.x)
    for measure in (None, uw.Margin()):
        with pytest.raises(ValueError, match=r"no labels, which this measurement needs; pass Examples\(x, y\)"):
            t.asking(measure).model.measure(unlabelled)
    for measure in (uw.Probability(of=1), lambda outputs, labels: outputs[:, 0]):
        model = t.asking(measure).model
        scores = uw.Influence().fit(model, t.train).attribute(unlabelled)
        np.testing.assert_array_equal(scores.values, uw.Influence().fit(model, t.train).attribute(t.queries).values)


@pytest.mark.parametrize("name", ["ridge", "poisson"])
def test_regressions_have_no_margin_and_no_probability(name):
    t = trained(name)
    with pytest.raises(TypeError, match="no classes and so no margin"):
        t.asking(uw.Margin()).model.measure(t.queries)
    with pytest.raises((TypeError, ValueError)):
        t.asking(uw.Probability(of=1)).model.measure(t.queries)


def test_measurements_that_do_not_fit_the_model_are_refused():
    t = trained("softmax")
    with pytest.raises(ValueError, match=r"expected one of the classes \[0, 1, 2\], got 9"):
        t.asking(uw.Probability(of=9)).model.measure(t.queries)
    with pytest.raises(TypeError, match="no probabilities"):
        svm = trained("svc_rbf")
        svm.asking(uw.Probability(of=1)).model.measure(svm.queries)
    with pytest.raises(ValueError, match=r"one number per query \(25,\), got \(25, 3\)"):
        t.asking(lambda outputs, labels: outputs).model.measure(t.queries)
    with pytest.raises(TypeError, match="expected a measurement"):
        t.asking("margin")


def test_a_classifier_per_pair_of_classes_has_no_single_margin():
    t = trained("svc_three")
    with pytest.raises(TypeError, match="one binary classifier per pair of classes has no single margin"):
        t.asking(uw.Margin()).model.measure(t.queries)


def test_the_class_of_a_measurement_is_not_taken_for_a_function():
    with pytest.raises(TypeError, match="expected a measurement"):
        trained("softmax").asking(uw.Margin)


def penalised(**settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LogisticRegression(**{"solver": "saga", "max_iter": 50, **settings}).fit(*THREE)


@pytest.mark.parametrize(
    ("estimator", "match"),
    [
        (lambda: penalised(penalty="l1"), "l1 penalty of several classes has no Hessian to invert; use penalty l2"),
        (lambda: penalised(**L1), "l1 penalty of several classes has no Hessian to invert; use penalty l2"),
        (lambda: penalised(penalty="elasticnet", l1_ratio=0.5), "l1 penalty of several classes"),
        (
            lambda: LogisticRegression(solver="liblinear", **L1).fit(X, Y),
            "l1 penalty of the intercept too.*use solver='saga'",
        ),
        (lambda: Lasso(positive=True).fit(X, Y), "positive=True has no Hessian.*fit without the constraint"),
        (lambda: Lasso().fit(X, np.c_[Y, Y]), "expected Lasso with one target, got 2"),
        (lambda: KernelRidge(kernel="precomputed").fit(X @ X.T, Y), "KernelRidge.*precomputed or callable kernel"),
        (
            lambda: LinearSVC(penalty="l1", dual=False).fit(X, Y),
            "l1 penalty has no Hessian to invert; use penalty='l2'",
        ),
        (lambda: LinearSVC(multi_class="crammer_singer").fit(*THREE), "crammer_singer.*use multi_class='ovr'"),
        (
            lambda: SGDClassifier(loss="log_loss", penalty="l1").fit(X, Y),
            "without a seed drew its order.*random_state=0",
        ),
        (
            lambda: SGDClassifier(loss="hinge").fit(X, Y),
            "without a seed drew its order.*random_state=0",
        ),
        (lambda: Ridge(alpha=1.0, positive=True).fit(X, Y), "positive=True has no Hessian.*fit without the constraint"),
        (lambda: LinearRegression(positive=True).fit(X, Y), "positive=True has no Hessian"),
        (
            lambda: Ridge(alpha=np.array([1.0, 2.0])).fit(X, np.c_[Y, Y]),
            "expected one alpha for all targets, got 2; fit one Ridge",
        ),
        (lambda: SVC(kernel="precomputed").fit(X @ X.T, Y), "precomputed or callable kernel.*use rbf"),
        (lambda: SVC(kernel=lambda a, b: a @ b.T).fit(X, Y), "precomputed or callable kernel.*use rbf"),
        (lambda: SVC(kernel="sigmoid").fit(X, Y), "kernel"),
    ],
    ids=lambda v: "" if callable(v) else v[:30],
)
def test_training_without_a_hessian_is_explained_by_refits_and_the_note_has_an_alternative(estimator, match):
    estimator = estimator()
    train = uw.Examples(X @ X.T, Y) if getattr(estimator, "kernel", None) == "precomputed" else TRAIN
    if "crammer" in match or "several classes" in match:
        train = uw.Examples(*THREE)
    if "targets" in match or "target," in match:
        train = uw.Examples(X, np.c_[Y, Y])
    if getattr(estimator, "kernel", None) == "precomputed":
        refused(estimator, train, match="precomputed matrix between all examples")
        return
    model = uw.explainable(estimator, train)
    assert isinstance(model, uw.Refittable)
    assert re.search(match, model.notes[0])


def test_an_elastic_net_without_l1_is_l2():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = LogisticRegression(solver="saga", l1_ratio=0.0, **TIGHT).fit(X, Y)
        elastic_net = LogisticRegression(solver="saga", penalty="elasticnet", l1_ratio=0.0, **TIGHT).fit(X, Y)
    for e in (estimator, elastic_net):
        assert uw.explainable(e, TRAIN).gradient_norm(TRAIN) < 1e-6


def test_smoothing_is_a_temperature_above_zero():
    t = trained("svc_rbf")
    with pytest.raises(ValueError, match="expected a smoothing temperature > 0, got 0"):
        uw.explainable(t.estimator, t.train, smoothing=0.0)


@pytest.mark.parametrize("name", ["logistic", "svc_rbf", "ridge"])
def test_weights_that_leave_nothing_to_train_on_are_refused(name):
    t = trained(name)
    n = len(t.train)
    with pytest.raises(ValueError, match=rf"one weight per training example \({n},\), got shape \(3,\)"):
        t.model.retrain(t.train, np.ones(3))
    for bad in (np.zeros(n), np.full(n, -1.0), np.full(n, np.nan)):
        with pytest.raises(ValueError, match="expected finite weights ≥ 0 that are not all zero"):
            t.model.retrain(t.train, bad)


def test_a_support_vector_machine_with_one_class_left_cannot_be_retrained():
    estimator = svc(kernel="linear").fit(X, Y)
    model = uw.explainable(estimator, TRAIN)
    with pytest.raises(ValueError, match="class"):
        model.retrain(TRAIN, (Y == 1) * 1.0)


def test_a_count_model_with_other_counts_is_refused():
    x, y = NUMBERS
    estimator = PoissonRegressor(alpha=0.1, **TIGHT).fit(x, np.floor(y))
    refused(estimator, uw.Examples(x, np.floor(y)[::-1].copy()), match="expected the data that PoissonRegressor")


def test_an_attribute_called_steps_does_not_make_a_pipeline():
    class Walk:
        steps = 3

    refused(Walk(), error=TypeError, match="expected a classifier or a regressor that upweight can read, got Walk")

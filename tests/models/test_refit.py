"""Any estimator as a model that is explained by refitting it: training, seeds, outputs, and what is refused."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Perceptron, Ridge, SGDClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

import upweight as uw
from support.trained_estimators import NUMBERS, THREE, TWO

X, Y = TWO[0][:60], TWO[1][:60]
TRAIN, QUERIES = uw.Examples(X, Y), uw.Examples(TWO[0][60:70], TWO[1][60:70])


def without(position):
    weights = np.ones(len(TRAIN))
    weights[position] = 0.0
    return weights


def test_a_removal_refits_the_whole_pipeline_on_the_other_rows():
    estimator = make_pipeline(StandardScaler(), KNeighborsClassifier(3)).fit(X, Y)
    model = uw.refittable(estimator, TRAIN)
    expected = make_pipeline(StandardScaler(), KNeighborsClassifier(3)).fit(np.delete(X, 4, 0), np.delete(Y, 4))
    right = expected.predict_proba(QUERIES.x)[np.arange(10), np.searchsorted(expected.classes_, QUERIES.y)]
    np.testing.assert_allclose(model.retrain(TRAIN, without(4)).measure(QUERIES), -((1 - right) ** 2), atol=1e-12)


def test_weights_are_sample_weights_if_fit_takes_them_and_copies_if_not():
    weights = np.ones(len(TRAIN))
    weights[:3] = [2.0, 0.5, 0.0]
    ridge = uw.refittable(Ridge(2.0).fit(X, Y.astype(float)), uw.Examples(X, Y.astype(float)))
    expected = Ridge(2.0).fit(X, Y.astype(float), sample_weight=weights)
    retrained = ridge.retrain(uw.Examples(X, Y.astype(float)), weights)
    np.testing.assert_allclose(retrained.predictor.coef_, expected.coef_)
    neighbours = uw.refittable(KNeighborsClassifier(3).fit(X, Y), TRAIN)
    with pytest.raises(ValueError, match=r"whole numbers as weights.*KNeighborsClassifier takes no sample weights"):
        neighbours.retrain(TRAIN, weights)
    copies = neighbours.retrain(TRAIN, np.where(np.arange(60) == 1, 2.0, 1.0))
    assert len(copies.predictor._fit_X) == 61


@pytest.mark.parametrize(
    ("estimator", "keyword"),
    [
        (make_pipeline(StandardScaler(), Ridge()), "ridge__sample_weight"),
        (BaggingClassifier(KNeighborsClassifier()), None),
        (VotingClassifier([("a", Ridge()), ("b", KNeighborsClassifier())]), None),
        (VotingClassifier([("a", Ridge())]), "sample_weight"),
    ],
)
def test_a_wrapper_takes_sample_weights_if_all_estimators_inside_do(estimator, keyword):
    from upweight.models.refit.sample_weights import weight_keyword

    assert weight_keyword(estimator) == keyword


def test_refits_with_one_seed_are_equal_and_leave_random_numbers_of_the_user_alone():
    model = uw.refittable(RandomForestClassifier(5).fit(X, Y), TRAIN)
    before = np.random.get_state()[1].copy()
    first, again, other = (model.retrain(TRAIN, np.ones(60), seed).measure(QUERIES) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_seed_0_repeats_the_training_of_an_estimator_with_a_seed():
    estimator = ExtraTreeClassifier(random_state=5).fit(X, Y)
    model = uw.refittable(estimator, TRAIN)
    np.testing.assert_array_equal(model.retrain(TRAIN, np.ones(60)).measure(QUERIES), model.measure(QUERIES))


class GlobalNoise(ClassifierMixin, BaseEstimator):
    """Draws from numpy's global random numbers, without a setting for a seed."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        self.direction_ = np.random.normal(size=x.shape[1])
        return self

    def predict(self, x):
        return self.classes_[(x @ self.direction_ > 0).astype(int)]


def test_an_estimator_that_draws_from_global_random_numbers_gets_seeds_too():
    model = uw.refittable(GlobalNoise().fit(X, Y), TRAIN)
    assert model.trial(TRAIN).is_random
    first, again = (model.retrain(TRAIN, np.ones(60), 7).measure(QUERIES) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_tree_that_fits_its_training_set_perfectly_is_still_seen_to_be_random():
    assert uw.refittable(ExtraTreeClassifier().fit(X, Y), TRAIN).trial(TRAIN).is_random
    assert not uw.refittable(KNeighborsClassifier().fit(X, Y), TRAIN).trial(TRAIN).is_random


def test_an_estimator_fitted_without_a_seed_is_explained_with_a_note_and_one_with_a_seed_without():
    unseeded, seeded = (BaggingClassifier(n_estimators=5, random_state=state).fit(X, Y) for state in (None, 0))
    assert any("fitted without a seed" in n for n in uw.refittable(unseeded, TRAIN).trial(TRAIN).notes)
    assert uw.refittable(seeded, TRAIN).trial(TRAIN).notes == ()
    inside = BaggingClassifier(DecisionTreeClassifier(), n_estimators=5, random_state=0).fit(X, Y)
    assert uw.refittable(inside, TRAIN).trial(TRAIN).notes == ()  # the trees have seeds from the ensemble


@pytest.mark.parametrize(
    ("estimator", "kind", "unit"),
    [
        (KNeighborsClassifier(), "probabilities", "half squared error"),
        (Perceptron(random_state=0), "decision values", "nats"),
        (VotingClassifier([("a", KNeighborsClassifier())]), "predicted labels", "half squared error"),
        (SVC(kernel=lambda a, b: a @ b.T, decision_function_shape="ovo"), "decision values", "nats"),
    ],
)
def test_the_most_informative_outputs_are_measured(estimator, kind, unit):
    model = uw.refittable(estimator.fit(X, Y), TRAIN)
    assert (model.outputs.kind, unit in model.measurement) == (kind, True)
    assert any("only removals that change a predicted label" in n for n in model.notes) == (kind == "predicted labels")


def test_decision_values_of_pairs_of_classes_are_not_taken_for_values_of_classes():
    estimator = SVC(kernel=lambda a, b: a @ b.T, decision_function_shape="ovo").fit(*THREE)
    assert uw.refittable(estimator, uw.Examples(*THREE)).outputs.kind == "predicted labels"


def test_several_targets_and_several_labels_have_one_measurement_per_query():
    x, y = NUMBERS
    numbers = uw.Examples(x, np.c_[y, -2 * y])
    model = uw.refittable(KNeighborsRegressor().fit(numbers.x, numbers.y), numbers)
    residuals = numbers.y - model.predictor.predict(x)
    np.testing.assert_allclose(model.measure(numbers), -0.5 * (residuals**2).sum(axis=1))
    labels = uw.Examples(X, np.c_[Y, X[:, 0] > 0].astype(int))
    tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    several = uw.refittable(MultiOutputClassifier(tree).fit(labels.x, labels.y), labels)
    expected = [p[np.arange(60), c] for p, c in zip(several.predictor.predict_proba(X), labels.y.T, strict=True)]
    np.testing.assert_allclose(several.measure(labels), -sum((1 - p) ** 2 for p in expected))
    assert np.isfinite(uw.ShortlistLeaveOneOut().fit(several, labels).attribute(labels.take([0, 1])).values).all()


def test_settings_that_an_exact_family_refuses_are_explained_by_refits_with_the_reason():
    stopped_early = SGDClassifier(random_state=0, early_stopping=True).fit(X, Y)
    model = uw.explainable(stopped_early, TRAIN)
    assert isinstance(model, uw.Refittable)
    assert "early_stopping=True leaves out other examples" in model.notes[0]
    with pytest.raises(ValueError, match="log_loss"):
        uw.explainable(stopped_early, TRAIN, at="optimum")


def test_texts_are_refitted_with_their_vocabulary_and_have_no_distances_without_it():
    texts = ["good film", "bad film", "good plot", "bad plot", "fine wit", "dull end"] * 4
    train = uw.Examples(texts, [1, 0, 1, 0, 1, 0] * 4)
    estimator = make_pipeline(TfidfVectorizer(), KNeighborsClassifier(3)).fit(train.x, train.y)
    model = uw.refittable(estimator, train)
    assert model.embed(train).shape == (24, 8)
    scores = uw.ShortlistLeaveOneOut(refits=6).fit(model, train).attribute(train.take([0, 1]))
    assert np.isfinite(scores.values).all(axis=0).sum() == 5


class Doubled(ClassifierMixin, BaseEstimator):
    """Changes its argument, so that it cannot be cloned."""

    def __init__(self, k=1):
        self.k = [2 * k]

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, x):
        return self.classes_[np.zeros(len(x), int)]


@pytest.mark.parametrize(
    ("estimator", "train", "match"),
    [
        (lambda: Doubled().fit(X, Y), TRAIN, "this Doubled cannot be cloned .*store its arguments unchanged"),
        (KNeighborsClassifier, TRAIN, r"is not fitted; call fit\(x, y\)"),
        (lambda: KNeighborsClassifier().fit(X, Y), uw.Examples(X), "no labels"),
        (lambda: KNeighborsClassifier().fit(X, Y), uw.Examples(X[:, :3], Y), "cannot predict the training examples"),
        (lambda: KNeighborsClassifier().fit(X, Y), uw.Examples(X, Y + 5), "never trained on that class"),
        (lambda: KNeighborsClassifier().fit(X, Y), uw.Examples(X, X[:, 0]), "expected class labels for KNeighbors"),
        (lambda: KNeighborsRegressor().fit(X, Y), uw.Examples(X, Y.astype(str)), "expected numbers as targets"),
        (
            lambda: KNeighborsClassifier().fit(X, Y),
            uw.Examples(X, Y, weights=np.full(60, 2.0)),
            "takes no sample weights, so it cannot have used those",
        ),
        (
            lambda: KNeighborsClassifier(metric="precomputed").fit(np.abs(X @ X.T), Y),
            uw.Examples(np.abs(X @ X.T), Y),
            "precomputed matrix between all examples",
        ),
    ],
)
def test_what_cannot_be_refitted_is_refused_in_a_sentence(estimator, train, match):
    with pytest.raises(ValueError, match=match):
        uw.refittable(estimator(), train)


def test_examples_that_the_estimator_was_not_fitted_on_are_noticed_at_the_first_refit():
    model = uw.refittable(KNeighborsClassifier(1).fit(X, Y), uw.Examples(X, 1 - Y))
    with pytest.raises(ValueError, match=r"expected the data that KNeighborsClassifier was fitted on.*warm_start"):
        uw.explain(model, uw.Examples(X, 1 - Y), QUERIES, removals=0)


def test_a_training_that_fails_is_a_sentence_and_other_examples_keep_their_scores():
    y = np.where(np.arange(60) == 7, 2, Y)
    train = uw.Examples(X, y)
    model = uw.refittable(KNeighborsClassifier(3).fit(X, y), train)
    scores = uw.ShortlistLeaveOneOut().fit(model, train).attribute(train.take([0, 1]))
    assert scores.diagnostics["undefined"] == [7]
    assert np.isfinite(np.delete(scores.values, 7, axis=1)).all()
    assert any("Example 7 has no score" in w and "none of class" in w for w in scores.diagnostics["warnings"])


def test_a_model_can_be_identified_after_a_search_tree_counted_its_queries():
    model = uw.refittable(
        make_pipeline(StandardScaler(), KNeighborsClassifier(3, algorithm="kd_tree")).fit(X, Y), TRAIN
    )
    before = model.identity()
    model.measure(QUERIES)
    assert model.identity() == before
    other = uw.refittable(make_pipeline(StandardScaler(), KNeighborsClassifier(4)).fit(X, Y), TRAIN)
    assert other.identity() != before


def test_a_logistic_regression_can_be_explained_by_refits_too():
    estimator = LogisticRegression(tol=1e-10, max_iter=10_000).fit(X, Y)
    refitted = uw.refittable(estimator, TRAIN, measure=uw.Probability(of=1))
    exact = uw.explainable(estimator, TRAIN, measure=uw.Probability(of=1))
    by_refits, by_newton = (uw.LeaveOneOut().fit(m, TRAIN).attribute(QUERIES).values for m in (refitted, exact))
    np.testing.assert_allclose(by_refits, by_newton, atol=1e-6)

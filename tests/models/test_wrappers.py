"""Wrappers that are read through: the estimator inside is explained, and the notes say what is held fixed."""

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, RandomizedSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import upweight as uw
from support.trained_estimators import TWO

X, Y = TWO[0][:80], TWO[1][:80]
TRAIN, QUERIES = uw.Examples(X, Y), uw.Examples(TWO[0][80:90], TWO[1][80:90])
TIGHT = {"tol": 1e-8, "max_iter": 5000}


def inside(estimator):
    return uw.Influence().fit(uw.explainable(estimator, TRAIN), TRAIN).attribute(QUERIES).values


@pytest.mark.parametrize("search", [GridSearchCV, lambda e, g: RandomizedSearchCV(e, g, n_iter=2, random_state=0)])
def test_a_search_is_explained_as_the_estimator_that_it_chose(search):
    estimator = search(LogisticRegression(**TIGHT), {"C": [0.1, 1.0]}).fit(X, Y)
    model = uw.explainable(estimator, TRAIN)
    assert "held fixed" in model.notes[0]
    assert f"C={estimator.best_params_['C']}" in model.notes[0]
    np.testing.assert_array_equal(inside(estimator), inside(estimator.best_estimator_))


def test_a_search_holds_its_choice_and_refittable_searches_again():
    estimator = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 9]}, cv=3).fit(X, Y)
    held, searched = uw.explainable(estimator, TRAIN), uw.refittable(estimator, TRAIN)
    assert type(held.predictor).__name__ == "KNeighborsClassifier"
    assert isinstance(searched, uw.Refittable)
    assert type(searched.retrain(TRAIN, np.ones(80)).predictor).__name__ == "GridSearchCV"


def test_a_search_inside_a_pipeline_and_a_pipeline_inside_the_search_become_one_pipeline():
    inner = GridSearchCV(make_pipeline(MinMaxScaler(), LogisticRegression(**TIGHT)), {"logisticregression__C": [1.0]})
    estimator = make_pipeline(StandardScaler(), inner).fit(X, Y)
    plain = make_pipeline(StandardScaler(), MinMaxScaler(), LogisticRegression(**TIGHT)).fit(X, Y)
    np.testing.assert_allclose(inside(estimator), inside(plain), rtol=1e-5, atol=1e-9)


def test_a_threshold_changes_no_score_and_a_note_says_what_labels_are():
    estimator = FixedThresholdClassifier(LogisticRegression(**TIGHT), threshold=0.9).fit(X, Y)
    assert "without the threshold" in uw.explainable(estimator, TRAIN).notes[0]
    np.testing.assert_array_equal(inside(estimator), inside(estimator.estimator_))


def test_what_is_frozen_is_explained_as_it_was_trained_and_never_by_refits_that_change_nothing():
    model = uw.explainable(FrozenEstimator(KNeighborsClassifier().fit(X, Y)), TRAIN)
    assert type(model.predictor).__name__ == "KNeighborsClassifier"
    calibrated = CalibratedClassifierCV(FrozenEstimator(LogisticRegression().fit(X, Y))).fit(X, Y)
    assert any("frozen" in note for note in uw.explainable(calibrated, TRAIN).notes)
    assert not any("frozen" in n for n in uw.explainable(CalibratedClassifierCV().fit(X, Y), TRAIN).notes)


def test_a_transformed_target_is_refitted_and_an_untransformed_one_is_read_through():
    y = np.exp(X[:, 0] / 4)
    train = uw.Examples(X, y)
    plain = TransformedTargetRegressor(Ridge()).fit(X, y)
    logarithm = TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp).fit(X, y)
    assert not isinstance(uw.explainable(plain, train), uw.Refittable)
    model = uw.explainable(logarithm, train)
    np.testing.assert_allclose(model.measure(train), -0.5 * (logarithm.predict(X) - y) ** 2)


def test_a_search_that_is_not_fitted_is_refused():
    with pytest.raises(ValueError, match="not fitted"):
        uw.explainable(GridSearchCV(LogisticRegression(), {"C": [1.0]}), TRAIN)


def test_forests_in_a_search_keep_their_own_family():
    estimator = GridSearchCV(RandomForestClassifier(10, random_state=0), {"max_depth": [2]}, cv=2).fit(X, Y)
    assert type(uw.explainable(estimator, TRAIN)).__name__ == "TreeModel"

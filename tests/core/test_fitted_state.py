"""An estimator that is fitted again in place does not answer for the fit of before."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import upweight as uw

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = np.where(X[:, 0] + 0.3 * RNG.normal(size=60) > 0, 1, 0)
TRAIN, QUERIES = uw.Examples(X, Y), uw.Examples(X[:4] + 0.1, Y[:4])

ESTIMATORS = {
    "linear": (lambda: LogisticRegression(tol=1e-8), uw.Influence()),
    "pipeline": (lambda: make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8)), uw.Influence()),
    "columns": (
        lambda: make_pipeline(
            make_column_transformer((make_pipeline(StandardScaler()), [0, 1]), remainder="passthrough"),
            LogisticRegression(tol=1e-8),
        ),
        uw.Influence(),
    ),
    "forest": (lambda: RandomForestClassifier(3, random_state=0), uw.ForestWeights()),
    "boosting": (lambda: GradientBoostingClassifier(n_estimators=3), uw.BoostIn()),
    "histograms": (lambda: HistGradientBoostingClassifier(max_iter=3), uw.BoostIn()),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_that_was_fitted_again_is_refused(name):
    make, recipe = ESTIMATORS[name]
    estimator = make().fit(X, Y)
    fitted = recipe.fit(uw.explainable(estimator, TRAIN), TRAIN)
    before = fitted.attribute(QUERIES).values
    estimator.predict(X)
    np.testing.assert_array_equal(fitted.attribute(QUERIES).values, before)
    estimator.fit(2 * X[:40] + 1, 1 - Y[:40])
    with pytest.raises(ValueError, match="the model was changed, moved or copied since this fit"):
        fitted.attribute(QUERIES)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda fitted: pickle.loads(pickle.dumps(fitted))])
def test_a_copy_of_a_fit_answers_as_the_fit(again):
    estimator = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, tol=1e-8)).fit(X, Y)
    fitted = uw.Influence().fit(uw.explainable(estimator, TRAIN), TRAIN)
    copied, before = again(fitted), fitted.attribute(QUERIES).values
    estimator.fit(2 * X[:40] + 1, 1 - Y[:40])
    np.testing.assert_array_equal(copied.attribute(QUERIES).values, before)

"""The `objective` option: the same optimum, as a sum of losses or as their mean."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.svm import LinearSVC

import upweight as uw
from support.trained_estimators import TIGHT, TWO

pytestmark = pytest.mark.filterwarnings("ignore:Liblinear failed to converge")

X, Y = TWO
L2 = 0.02
C = 1.0 / (len(Y) * L2)
TRAIN = uw.Examples(X, Y)
ONES = np.ones(len(Y))
ESTIMATORS = [
    LogisticRegression(C=C, fit_intercept=False, **TIGHT),
    LogisticRegression(C=C, class_weight={0: 2.0}, **TIGHT),
    LinearSVC(C=C, loss="hinge", fit_intercept=False, random_state=0, **TIGHT),
]


def fitted(estimator, objective):
    return uw.explainable(clone(estimator).fit(X, Y), TRAIN, objective=objective)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=["logistic", "weighted", "hinge"])
def test_under_a_mean_removal_leaves_the_regularisation_of_the_others_as_it_is(estimator):
    model = fitted(estimator, "mean")
    weights = ONES.copy()
    weights[:5] = 0.0
    share = np.array([2.0 if estimator.class_weight and y == 0 else 1.0 for y in Y])
    scaled = estimator.C * share.sum() / (share * weights).sum()
    truth = clone(estimator).set_params(C=scaled).fit(X[5:], Y[5:])
    coefficients = model.retrain(TRAIN, weights).parameters[: X.shape[1]]
    under_a_sum = clone(estimator).fit(X[5:], Y[5:]).coef_.ravel()
    assert (
        np.abs(coefficients - truth.coef_.ravel()).max() < 0.02 * np.abs(under_a_sum - truth.coef_.ravel()).max() + 1e-7
    )


@pytest.mark.parametrize("estimator", ESTIMATORS[:2], ids=["logistic", "weighted"])
def test_influence_predicts_retraining_under_a_mean(estimator):
    model = fitted(estimator, "mean")
    scores = uw.Influence().fit(model, TRAIN).attribute(TRAIN.take(range(5)))
    check = uw.verify(
        model,
        TRAIN,
        TRAIN.take(range(5)),
        scores,
        {str(i): [i] for i in range(20)},
        retraining=uw.Retraining(processes=1),
    )
    assert check.slope == pytest.approx(1.0, abs=1e-3)
    under_a_sum = uw.Influence().fit(fitted(estimator, "sum"), TRAIN).attribute(TRAIN.take(range(5)))
    assert np.abs(under_a_sum.values - scores.values).max() > np.median(np.abs(scores.values))


def test_a_mean_can_be_taken_for_a_sum():
    estimator = SGDClassifier(loss="log_loss", alpha=L2, random_state=0)
    summed = fitted(estimator, "sum")
    assert summed.objective == uw.Objective("sum", L2 * len(Y))
    assert fitted(estimator, None).objective == fitted(estimator, "mean").objective == uw.Objective("mean", L2)


def test_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match='expected objective "sum" or "mean", got \'average\''):
        fitted(ESTIMATORS[0], "average")

"""What removal means can be said: the same optimum, with the regulariser staying or going along."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.svm import LinearSVC
from trained import TIGHT, TWO

import upweight as uw

pytestmark = pytest.mark.filterwarnings("ignore:Liblinear failed to converge")

X, Y = TWO
L2 = 0.02
C = 1.0 / (len(Y) * L2)
TRAIN = uw.Examples(X, Y)
ONES = np.ones(len(Y))
MACHINES = [
    LogisticRegression(C=C, fit_intercept=False, **TIGHT),
    LogisticRegression(C=C, class_weight={0: 2.0}, **TIGHT),
    LinearSVC(C=C, loss="hinge", fit_intercept=False, random_state=0, **TIGHT),
]


def fitted(machine, objective):
    return uw.explainable(clone(machine).fit(X, Y), TRAIN, objective=objective)


@pytest.mark.parametrize("machine", MACHINES, ids=["logistic", "weighted", "hinge"])
def test_under_a_mean_the_others_are_regularised_as_much(machine):
    model = fitted(machine, "mean")
    weights = ONES.copy()
    weights[:5] = 0.0
    share = np.array([2.0 if machine.class_weight and y == 0 else 1.0 for y in Y])
    scaled = machine.C * share.sum() / (share * weights).sum()
    truth = clone(machine).set_params(C=scaled).fit(X[5:], Y[5:])
    found = model.retrain(TRAIN, weights).parameters[: X.shape[1]]
    stays = clone(machine).fit(X[5:], Y[5:]).coef_.ravel()
    assert np.abs(found - truth.coef_.ravel()).max() < 0.02 * np.abs(stays - truth.coef_.ravel()).max() + 1e-7


@pytest.mark.parametrize("machine", MACHINES[:2], ids=["logistic", "weighted"])
def test_influence_predicts_retraining_under_a_mean(machine):
    model = fitted(machine, "mean")
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
    other = uw.Influence().fit(fitted(machine, "sum"), TRAIN).attribute(TRAIN.take(range(5)))
    assert np.abs(other.values - scores.values).max() > np.median(np.abs(scores.values))  # and a sum says otherwise


def test_a_mean_can_be_taken_for_a_sum():
    machine = SGDClassifier(loss="log_loss", alpha=L2, random_state=0)
    summed = fitted(machine, "sum")
    assert summed.objective == uw.Objective("sum", L2 * len(Y))
    assert fitted(machine, None).objective == fitted(machine, "mean").objective == uw.Objective("mean", L2)


def test_another_word_is_refused():
    with pytest.raises(ValueError, match='expected objective "sum" or "mean", got \'average\''):
        fitted(MACHINES[0], "average")

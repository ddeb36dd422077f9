import json

import numpy as np
import pytest

import upweight as uw
from support.logistic_fit import logistic_fit
from upweight.evaluate.damping_tuning import tune_damping
from upweight.evaluate.lds import lds
from upweight.evaluate.removals import subsets
from upweight.evaluate.retrain_truth import retrain_truth

DAMPINGS = [0.0, 1e-3, 1e-1, 10.0, 1e3]


def tuned(dampings=DAMPINGS, recipe=None, count=24):
    model, train, queries, _, _ = logistic_fit()
    truth = retrain_truth(model, train, queries, subsets(train, count, 0.8), retraining=uw.Retraining(processes=1))
    recipe = recipe or uw.Influence(correction=None)
    return tune_damping(recipe, dampings, model, train, queries, truth), truth


def test_the_best_damping_is_that_of_the_best_order_on_the_half_that_chooses():
    tuning, truth = tuned()
    model, train, queries, _, _ = logistic_fit()
    order = sorted(range(24), key=lambda c: len(truth.removals[c].ids))
    means = {}
    for damping in DAMPINGS:
        scores = uw.Influence(correction=None, damping=damping).fit(model, train).attribute(queries)
        means[damping] = lds(scores, truth.take(order[::2]), draws=1).mean
    assert dict(tuning.table) == pytest.approx(means)
    assert tuning.damping == max(means, key=means.get) and tuning.recipe.correction is None
    np.testing.assert_array_equal(tuning.scores.values, tuning.recipe.fit(model, train).attribute(queries).values)
    assert tuning.held_out.subsets == 12
    assert tuning.held_out.mean == pytest.approx(lds(tuning.scores, truth.take(order[1::2])).mean)


def test_a_damping_that_ruins_the_order_is_not_chosen_and_a_choice_at_the_end_has_a_warning():
    tuning, _ = tuned([1e-4, 1e5])
    assert tuning.damping == 1e-4 and "at the end of the candidates" in tuning.warnings[0]
    document = json.loads(json.dumps(tuning.as_dict(), allow_nan=False))
    assert document["damping"] == 1e-4 and len(document["table"]) == 2
    assert "held-out LDS" in repr(tuning) and "<td>0.0001</td>" in tuning._repr_html_()


def test_a_check_can_stand_for_its_truth():
    model, train, queries, _, scores = logistic_fit()
    check = uw.verify(model, train, queries, scores, 12, retraining=uw.Retraining(processes=1))
    assert tune_damping(uw.Influence(), [0.0, 1e3], model, train, queries, check).damping == 0.0


def test_bad_choices_are_refused():
    with pytest.raises(TypeError, match="LeaveOneOut has none"):
        tuned(recipe=uw.LeaveOneOut())
    with pytest.raises(ValueError, match="at least two different dampings"):
        tuned([0.1, 0.1])
    with pytest.raises(ValueError, match="at least 10 removals, half to choose by and half to judge, got 9"):
        tuned(count=9)
    with pytest.raises(ValueError, match="no damping could be used: Damping -2 could not"):
        tuned([-2.0, -1.0])
    assert "could not be used" in tuned([-1.0, 0.1])[0].warnings[0]

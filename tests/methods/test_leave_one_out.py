import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from small import small

import upweight as uw


@pytest.mark.parametrize("kind", ["softmax", "ridge", "poisson"])
def test_leave_one_out_is_retraining(kind):
    model, train, queries = small(kind, n=30)
    scores = uw.LeaveOneOut().fit(model, train).attribute(queries)
    base = model.retrain(train, np.ones(30)).measure(queries)
    for i in range(0, 30, 7):
        after = model.retrain(train, 1.0 - np.eye(30)[i]).measure(queries)
        np.testing.assert_allclose(scores.values[:, i], base - after, atol=1e-9)
    assert scores.unit == uw.Unit.EFFECT and scores.diagnostics["trainings"] == 31


def test_two_processes_give_the_scores_of_one():
    model, train, queries = small("softmax", n=30)
    one, two = (uw.LeaveOneOut(processes=p).fit(model, train) for p in (1, 2))
    np.testing.assert_allclose(two.attribute(queries).values, one.attribute(queries).values, atol=1e-12)
    np.testing.assert_allclose(two.self_influence().values, one.self_influence().values, atol=1e-12)


def test_self_influence_is_the_examples_own_column():
    model, train, _ = small("logistic", n=30)
    fitted = uw.LeaveOneOut().fit(model, train)
    np.testing.assert_allclose(
        fitted.self_influence().values[0], np.diagonal(fitted.attribute(train).values), atol=1e-12
    )


def test_a_saved_fit_gives_the_same_scores(tmp_path):
    model, train, queries = small("logistic", n=30)
    fitted = uw.LeaveOneOut().fit(model, train)
    fitted.save(tmp_path / "fit")
    loaded = uw.LeaveOneOut().load(tmp_path / "fit", model, train)
    np.testing.assert_array_equal(loaded.attribute(queries).values, fitted.attribute(queries).values)


def test_the_block_of_models_measured_at_once_changes_nothing():
    model, train, queries = small("logistic", n=30)
    fitted = uw.LeaveOneOut().fit(model, train)
    whole = fitted.attribute(queries).values
    fitted.model_block = 7
    np.testing.assert_allclose(fitted.attribute(queries).values, whole, atol=1e-13)  # nats; products of other shapes


def test_a_model_that_cannot_be_retrained_is_refused():
    with pytest.raises(TypeError, match=r"LeaveOneOut needs a model that is Retrainable.*upweight\.explainable"):
        uw.LeaveOneOut().fit(object(), small("ridge")[1])


def test_a_model_that_retraining_does_not_reproduce_has_a_warning():
    x, y = load_breast_cancer(return_X_y=True)
    train = uw.Examples(x[:60, :4], y[:60])
    for seed, has_warning in ((0, False), (None, True)):
        forest = RandomForestClassifier(5, max_depth=2, random_state=seed).fit(train.x, train.y)
        scores = uw.LeaveOneOut().fit(uw.explainable(forest, train), train).attribute(train.take([3]))
        assert any("does not give the model handed in" in w for w in scores.diagnostics["warnings"]) == has_warning

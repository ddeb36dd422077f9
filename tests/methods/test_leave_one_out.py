import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

import upweight as uw
from support.small_linear_models import small


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
    sequential, parallel = (uw.LeaveOneOut(processes=p).fit(model, train) for p in (1, 2))
    np.testing.assert_allclose(parallel.attribute(queries).values, sequential.attribute(queries).values, atol=1e-12)
    np.testing.assert_allclose(parallel.self_influence().values, sequential.self_influence().values, atol=1e-12)


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
        assert any("does not give the given model" in w for w in scores.diagnostics["warnings"]) == has_warning


def lone_class(ids=None):
    """A logistic regression with one example of class 2, and queries of the other classes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 3))
    y = (x[:, 0] > 0).astype(int)
    y[5] = 2
    train = uw.Examples(x, y, ids=ids)
    queries = uw.Examples(rng.normal(size=(4, 3)), [0, 1, 0, 1])
    return uw.explainable(LogisticRegression(tol=1e-10, max_iter=5000).fit(x, y), train), train, queries


def test_an_example_the_model_cannot_do_without_is_nan_and_named(tmp_path):
    model, train, queries = lone_class([f"r{i}" for i in range(24)])
    fitted = uw.LeaveOneOut().fit(model, train)
    scores = fitted.attribute(queries)
    assert np.isnan(scores.values[:, 5]).all() and np.isfinite(np.delete(scores.values, 5, axis=1)).all()
    (warning,) = [w for w in scores.diagnostics["warnings"] if "NaN" in w]
    assert "Example 'r5' has no score" in warning and scores.diagnostics["undefined"] == ["r5"]
    keep = np.delete(np.arange(24), 3)
    refit = LogisticRegression(tol=1e-10, max_iter=5000).fit(train.x[keep], train.y[keep])
    loss = -np.log(refit.predict_proba(queries.x)[np.arange(4), queries.y])
    np.testing.assert_allclose(scores.values[:, 3], loss + model.measure(queries), atol=1e-6)
    assert all(a.id != "r5" for q in range(4) for a in scores.proponents(q, 24) + scores.opponents(q, 24))
    for k in (2, 11, 30):
        top = fitted.top(queries, k)
        assert [top.proponents(q) for q in range(4)] == [scores.proponents(q, k) for q in range(4)]
        assert [top.opponents(q) for q in range(4)] == [scores.opponents(q, k) for q in range(4)]
    self_influence = fitted.self_influence().values[0]
    assert np.isnan(self_influence[5]) and np.isfinite(np.delete(self_influence, 5)).all()
    fitted.save(tmp_path / "fit.npz")
    again = uw.LeaveOneOut().load(tmp_path / "fit.npz", model, train).attribute(queries)
    np.testing.assert_array_equal(again.values, scores.values)
    assert again.diagnostics == scores.diagnostics
    scores.save(tmp_path / "scores.npz")
    np.testing.assert_array_equal(uw.Scores.load(tmp_path / "scores.npz").values, scores.values)


def test_scores_with_an_example_the_model_cannot_do_without_are_verified(tmp_path):
    model, train, queries = lone_class()
    scores = uw.LeaveOneOut().fit(model, train).attribute(queries)
    check = uw.verify(model, train, queries, scores, 8, retraining=uw.Retraining(processes=1))
    assert check.verdict is uw.Verdict.AGREES
    with pytest.raises(ValueError, match="got one without"):
        check.interval([5])
    by = np.where(np.arange(24) == 5, "lone", "others")
    assert np.isnan(scores.group(by).values[:, 0]).all() and np.isfinite(scores.group(by).values[:, 1]).all()
    assert "cannot be trained without" in uw.write_report(tmp_path / "r.html", scores, train, queries).read_text(
        "utf-8"
    )


def test_a_set_of_which_no_example_can_be_spared_is_refused():
    train = uw.Examples([[0.0], [1.0]], [0, 1])
    model = uw.explainable(LogisticRegression().fit(train.x, train.y), train)
    with pytest.raises(ValueError, match="cannot be trained without any of the examples"):
        uw.LeaveOneOut().fit(model, train)


def test_nan_without_a_reason_is_still_refused():
    with pytest.raises(ValueError, match="1 scores are NaN"):
        uw.Scores(np.array([[np.nan, 1.0]]), np.array([0]), np.arange(2), uw.Unit.EFFECT)

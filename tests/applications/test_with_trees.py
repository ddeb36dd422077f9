"""Applications on boosted and bagged trees: what they can do there, and a plain word where they cannot."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier

import upweight as uw
from upweight.applications.explain import explain

X, Y = load_breast_cancer(return_X_y=True)
X = X[:, :6]
WRONG = np.arange(0, 150, 15)


def boosters():
    yield pytest.param(lambda: GradientBoostingClassifier(n_estimators=15, random_state=0), id="scikit-learn")
    try:
        import lightgbm
    except ImportError:
        return
    yield pytest.param(lambda: lightgbm.LGBMClassifier(n_estimators=15, n_jobs=1, verbose=-1), id="lightgbm")


@pytest.fixture(params=boosters())
def task(request):
    y = Y[:150].copy()
    y[WRONG] = 1 - y[WRONG]
    train = uw.Examples(X[:150], y)
    return uw.explainable(request.param().fit(train.x, train.y), train), train, uw.Examples(X[300:340], Y[300:340])


def test_explain_retrains_trees_as_its_check(task):
    model, train, queries = task
    explanation = explain(model, train, queries.take([0, 1]), removals=2)
    assert len(explanation.check.removals) == 2 and np.isfinite(explanation.check.actual).all()


def test_mislabeled_by_models_that_did_not_see_the_label(task):
    model, train, _ = task
    suspects = uw.mislabeled(model, train, budget=20)
    assert len(set(suspects.ids.tolist()) & set(WRONG.tolist())) >= 5, "by chance it would be 1.3"
    assert "no gradients" in suspects.notes[0]


def test_slices_by_what_suits_trees(task):
    model, train, queries = task
    slices = uw.slices(
        model, train, queries, uw.Slicing({"flipped": np.isin(np.arange(150), WRONG)}, {"all": queries.ids}), removals=1
    )
    assert np.isfinite(slices.effects).all() and np.isfinite(slices.actual).sum() == slices.actual.shape[1]
    whole = uw.LeafRefit().fit(model, train).remove({"flipped": WRONG}, queries).values.mean()
    np.testing.assert_allclose(slices.effects[slices.groups.names.index("flipped = True"), 0], whole)


def test_what_if_retrains_a_model_without_gradients(task):
    model, train, queries = task
    result = uw.what_if(model, train, queries, uw.Change(remove=[3]))
    factors = np.ones(len(train))
    factors[3] = 0
    actual = model.retrain(train, factors).measure(queries) - model.measure(queries)
    np.testing.assert_allclose(result.actual[:, 0], actual, atol=1e-9)
    assert result.predicted is None

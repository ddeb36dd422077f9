"""Rows of weight 0 and of weight k in the leaves of trees."""

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor

import upweight as uw
from upweight.trees.ensemble import ensemble_of

N = 50
ABSENT = np.where(np.arange(N) % 6 < 2, 0.0, 1.0)
COPIES = np.ones(N)
COPIES[5], COPIES[17] = 3.0, 10.0


def data():
    """Inputs of few different values, and a regression target."""
    rng = np.random.default_rng(0)
    x = np.round(2 * rng.normal(size=(N, 4)))
    return x, x[:, 0] + rng.normal(size=N)


def test_the_weight_of_a_leaf_is_the_sum_of_its_examples():
    ensemble = ensemble_of([np.zeros(2), np.zeros(3)], np.arange(2), np.zeros(2, dtype=int), np.zeros(1))
    leaves = np.array([[0, 2], [1, 2], [1, 4]])
    assert ensemble.leaf_weights(leaves, np.ones(3)).tolist() == [1, 2, 2, 0, 1]
    assert ensemble.leaf_weights(leaves, np.array([0.0, 3.0, 1.0])).tolist() == [0, 4, 3, 0, 1]
    assert ensemble.leaf_weights(leaves, np.array([[1, 0], [2, 1], [0, 0]])).tolist() == [1, 2, 1, 0, 0]


@pytest.mark.parametrize("weights", [ABSENT, COPIES], ids=["absent", "copies"])
def test_removing_a_row_from_a_forest_removes_all_its_weight(weights):
    """Compared with leaf means that are computed without the row."""
    x, y = data()
    train = uw.Examples(x, y, weights=weights)
    forest = ExtraTreesRegressor(12, max_depth=3, random_state=0).fit(x, y, sample_weight=weights)
    model = uw.explainable(forest, train)
    queries = uw.Examples(x[:6], y[:6], ids=np.arange(100, 106))
    scores = uw.ForestWeights().fit(model, train).attribute(queries).values
    train_leaves, query_leaves = model.leaves(train), model.leaves(queries)
    for i in (5, 17, 30):
        remaining = np.where(np.arange(N) == i, 0.0, weights)
        predictions = []
        for tree in range(train_leaves.shape[1]):
            shared = (train_leaves[:, [tree]] == query_leaves[:, tree]) * remaining[:, None]
            means = np.where(shared.sum(0) > 0, train.y @ shared / np.maximum(shared.sum(0), 1e-300), np.nan)
            predictions.append(means)
        without = np.nanmean(predictions, axis=0)
        expected = model.measure(queries) - model.measure_margins(queries, without[:, None])
        np.testing.assert_allclose(scores[:, i], expected, atol=1e-10)
    assert (scores[:, weights == 0] == 0).all()


def test_a_leaf_with_rows_of_weight_0_alone_is_no_error_and_gives_no_score():
    x, y = data()
    weights = np.where(x[:, 0] > 1, 0.0, 1.0)
    estimator = GradientBoostingRegressor(n_estimators=5, max_depth=2, random_state=0).fit(x, y, weights)
    train = uw.Examples(x, y, weights=weights)
    model = uw.explainable(estimator, train)
    scores = uw.LeafRefit().fit(model, train).attribute(train.take([0, 1]))
    assert (scores.values[:, weights == 0] == 0).all() and np.isfinite(scores.values).all()
    with pytest.raises(ValueError, match="to be some of"):
        uw.LeafRefit().fit(model, train).remove({"all": np.flatnonzero(weights)}, train.take([0]))

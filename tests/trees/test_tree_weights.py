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
    rng = np.random.default_rng(0)
    x = np.round(2 * rng.normal(size=(N, 4)))
    return x, x[:, 0] + rng.normal(size=N)


def both(estimator, weights):
    """(model, training set) of the weighted set and of the written one, and which row each of its rows is."""
    x, y = data()
    rows = np.repeat(np.arange(N), weights.astype(int))
    fitted = estimator.fit(x, y, sample_weight=weights)
    sets = uw.Examples(x, y, weights=weights), uw.Examples(x[rows], y[rows])
    return [(uw.explainable(fitted, some), some) for some in sets], rows


def test_a_leaf_holds_weights():
    ensemble = ensemble_of([np.zeros(2), np.zeros(3)], np.arange(2), np.zeros(2, dtype=int), np.zeros(1))
    places = np.array([[0, 2], [1, 2], [1, 4]])
    assert ensemble.leaf_weights(places, np.ones(3)).tolist() == [1, 2, 2, 0, 1]
    assert ensemble.leaf_weights(places, np.array([0.0, 3.0, 1.0])).tolist() == [0, 4, 3, 0, 1]
    assert ensemble.leaf_weights(places, np.array([[1, 0], [2, 1], [0, 0]])).tolist() == [1, 2, 1, 0, 0]


@pytest.mark.parametrize("weights", [ABSENT, COPIES], ids=["absent", "copies"])
def test_removing_a_row_from_a_forest_takes_all_its_weight(weights):
    """Against leaf means taken anew without it."""
    ((model, train), _), _ = both(ExtraTreesRegressor(12, max_depth=3, random_state=0), weights)
    queries = uw.Examples(*(part[:6] for part in data()), ids=np.arange(100, 106))
    found = uw.ForestWeights().fit(model, train).attribute(queries).values
    at, query_at = model.leaves(train), model.leaves(queries)
    for i in (5, 17, 30):
        left = np.where(np.arange(N) == i, 0.0, weights)
        predictions = []
        for tree in range(at.shape[1]):
            inside = (at[:, [tree]] == query_at[:, tree]) * left[:, None]
            means = np.where(inside.sum(0) > 0, train.y @ inside / np.maximum(inside.sum(0), 1e-300), np.nan)
            predictions.append(means)
        without = np.nanmean(predictions, axis=0)
        expected = model.measure(queries) - model.measure_margins(queries, without[:, None])
        np.testing.assert_allclose(found[:, i], expected, atol=1e-10)
    assert (found[:, weights == 0] == 0).all()


def test_a_leaf_of_absent_rows_alone_has_no_cause():
    x, y = data()
    weights = np.where(x[:, 0] > 1, 0.0, 1.0)
    estimator = GradientBoostingRegressor(n_estimators=5, max_depth=2, random_state=0).fit(x, y, weights)
    train = uw.Examples(x, y, weights=weights)
    model = uw.explainable(estimator, train)
    scores = uw.LeafRefit().fit(model, train).attribute(train.take([0, 1]))
    assert (scores.values[:, weights == 0] == 0).all() and np.isfinite(scores.values).all()
    with pytest.raises(ValueError, match="to be some of"):
        uw.LeafRefit().fit(model, train).remove({"all": np.flatnonzero(weights)}, train.take([0]))

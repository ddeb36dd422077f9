"""Examples followed over the checkpoints of a training."""

import numpy as np
import pytest

import upweight as uw
from support.network_families import NETWORKS


@pytest.fixture(scope="module")
def followed():
    problem = NETWORKS[0]
    train, queries = problem.examples()
    model = problem.model(train)
    scores = uw.TracIn().fit(model, train).attribute(queries)
    return model, train, queries, scores, uw.follow(model, train, queries, scores, k=3)


def test_pushes_add_up_to_tracin(followed):
    _, train, queries, scores, course = followed
    for row, query in enumerate(queries.ids.tolist()):
        ids = [a.id for a in [*scores.proponents(query, 3), *scores.opponents(query, 3)]]
        columns = [course.train_ids.tolist().index(i) for i in ids]
        total = course.contributions[:, row, columns].sum(axis=0) * len(train)
        expected = scores.values[row, train.positions(ids)]
        assert np.allclose(total, expected, rtol=1e-5)
        assert np.isfinite(course.contributions[0, row]).sum() == len(ids)


def test_measurements_end_where_the_model_is(followed):
    model, train, queries, _, course = followed
    assert course.steps.tolist() == [15, 30, 45, 60]
    assert np.allclose(course.of_queries[-1], model.measure(queries))
    assert np.allclose(course.of_train[-1], model.measure(train.select(course.train_ids)))
    assert (course.of_queries[-1] > course.of_queries[0]).mean() > 0.5  # it learned


def test_order_of_the_queries_is_that_of_the_scores(followed):
    model, train, queries, scores, course = followed
    again = uw.follow(model, train, queries.take(np.arange(len(queries))[::-1]), scores, k=3)
    # A product of matrices may round a row otherwise at another place.
    largest = np.nanmax(np.abs(course.contributions))
    np.testing.assert_allclose(again.contributions, course.contributions, rtol=1e-9, atol=1e-12 * largest)


def test_what_cannot_be_followed_is_refused(followed):
    model, train, queries, scores, _ = followed
    with pytest.raises(TypeError, match="follow needs a model that is Checkpointed"):
        uw.follow(object(), train, queries, scores)
    with pytest.raises(ValueError, match="k of at least 1"):
        uw.follow(model, train, queries, scores, k=0)

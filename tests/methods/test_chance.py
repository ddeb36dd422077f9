import numpy as np

import upweight as uw
from support.small_linear_models import small


def scores_of(train, queries, seed=0):
    return uw.Chance(seed=seed).fit(small("logistic")[0], train).attribute(queries)


def test_a_score_depends_on_its_two_ids_alone():
    _, train, queries = small("logistic")
    whole = scores_of(train, queries)
    part = scores_of(train.take([40, 3, 11]), queries.take([5, 0]))
    np.testing.assert_allclose(part.values, whole.values[[5, 0]][:, [40, 3, 11]], atol=1e-12)
    np.testing.assert_array_equal(scores_of(train, queries).values, whole.values)


def test_another_seed_gives_other_scores():
    _, train, queries = small("logistic")
    first, second = scores_of(train, queries).values, scores_of(train, queries, seed=1).values
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2


def test_scores_are_about_standard_normal_and_only_a_rank():
    _, train, queries = small("logistic", n=500)
    scores = scores_of(train, queries)
    assert scores.unit == uw.Unit.RANK and abs(scores.values.mean()) < 0.1 and abs(scores.values.std() - 1) < 0.15
    assert "random" in scores.diagnostics["warnings"][0]
    self_influence = uw.Chance().fit(small("logistic")[0], train).self_influence().values
    assert abs(self_influence.std() - 1) < 0.15


def test_a_number_and_its_text_are_different_ids():
    _, train, queries = small("logistic")
    words = uw.Examples(train.x, train.y, ids=[str(i) for i in range(len(train))])
    numbers = uw.Examples(train.x, train.y)
    assert not np.array_equal(scores_of(words, queries).values, scores_of(numbers, queries).values)

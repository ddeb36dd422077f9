from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import upweight as uw
from support.additive_game import StackedGame, game
from support.logistic_fit import logistic_fit
from support.network_families import cross_entropy, digits, mlp
from upweight.evaluate.brittleness import brittleness


def tiny(n=12, seed=3):
    """Two overlapping clouds and four queries: small enough to try every removal."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.standard_normal((n, 2)) + 0.8 * y[:, None]
    train = uw.Examples(x, y, ids=[f"t{i}" for i in range(n)], labels={0: "no", 1: "yes"})
    q = np.array([[0.1, 0.4], [1.0, 0.9], [0.4, 0.1], [0.3, 0.9]])
    queries = uw.Examples(q, [0, 1, 1, 0], ids=["a", "b", "c", "d"], labels={0: "no", 1: "yes"})
    model = uw.explainable(LogisticRegression(tol=1e-12).fit(x, y), train, uw.Margin())
    return model, train, queries, uw.Influence().fit(model, train).attribute(queries)


def flips(model, train, query, ids):
    weights = np.ones(len(train))
    weights[train.positions(ids)] = 0.0
    return model.retrain(train, weights).predict(query).predicted != model.predict(query).predicted


def test_brute_force_finds_no_smaller_removal_but_by_one():
    model, train, queries, scores = tiny()
    result = brittleness(model, train, queries, scores, most=6, retraining=uw.Retraining(processes=1))
    assert {f.size is None for f in result.flips} == {False}
    equal = 0
    for flip in result.flips:
        query = queries.select([flip.query])
        sizes = (
            k for k in range(1, flip.size + 1)
            for some in combinations(train.ids.tolist(), k) if flips(model, train, query, list(some))
        )  # fmt: skip
        least = next(sizes)
        assert least <= flip.size <= least + 1
        equal += least == flip.size
    assert equal >= 3


def test_a_flip_is_confirmed_by_the_trainings_with_k_and_k_minus_one_removed():
    model, train, queries, _, _ = logistic_fit()
    model = uw.explainable(LogisticRegression(tol=1e-12).fit(train.x, train.y), train)
    scores = uw.Influence().fit(model, train).attribute(queries)
    result = brittleness(model, train, queries, scores, most=60, retraining=uw.Retraining(processes=1))
    assert any(f.size and f.size > 4 for f in result.flips)
    for flip in result.flips:
        query = queries.select([flip.query])
        assert flip.before == model.predict(query).predicted[0]
        if flip.size is not None:
            assert flips(model, train, query, list(flip.removed))
            assert flip.size == 1 or not flips(model, train, query, list(flip.removed[:-1]))
            assert flip.after != flip.before


def test_in_an_additive_game_greedy_is_best_and_bisection_finds_its_size():
    model, train, queries, scores = game(queries=8, players=60, seed=5)
    result = brittleness(model, train, queries, scores, most=59, retraining=uw.Retraining(processes=1))
    for place, flip in enumerate(result.flips):
        worth = np.sort(model.worth[place])[::-1]
        wins = worth.sum() > 0
        left = worth.sum() - np.cumsum(worth if wins else worth[::-1])
        assert flip.before == ("win" if wins else "lose")
        assert flip.size == int(np.argmax((left > 0) != wins)) + 1
    assert result.trainings == len([g for g, _ in model.log]) < 8 * 14
    assert result.share(result.flips[0].size) > 0 and result.median == np.median([f.size for f in result.flips])


def test_a_prediction_that_no_removal_flips_is_reported():
    model, train, queries, scores = game(queries=3, players=40)
    model.worth[:] = np.abs(model.worth)
    scores = replace(scores, values=model.worth)
    result = brittleness(model, train, queries, scores, most=6, retraining=uw.Retraining(processes=1))
    assert [(f.size, f.tried, f.after) for f in result.flips] == [(None, 6, None)] * 3
    assert "not flipped up to 6" in str(result.flips[0]) and "0 of 3 predictions flipped up to 6" in repr(result)
    assert result.as_dict()["flips"][0]["size"] is None and result.median == np.inf
    negative = brittleness(
        model, train, queries, replace(scores, values=-model.worth), most=6, retraining=uw.Retraining(processes=1)
    )
    assert negative.flips[0].tried == 0 and "only 0 examples have scores that support it" in str(negative.flips[0])


def test_a_removal_that_the_model_refuses_ends_the_search():
    model, train, queries, scores = game(queries=1, players=40)
    model.worth[:] = np.arange(40, 0, -1)
    stuck = replace(model, refuses=frozenset({5}))
    flip = brittleness(
        stuck, train, queries, replace(scores, values=model.worth), most=30, retraining=uw.Retraining(processes=1)
    ).flips[0]
    assert flip.size is None and flip.tried == 5 and "cannot be trained without 6: nobody of class 'king'" in flip.note


def test_queries_that_cannot_flip_are_refused():
    model, train, queries, scores = tiny()
    with pytest.raises(ValueError, match="expected queries with labels and a model that predicts classes"):
        brittleness(model, train, uw.Examples(queries.x, ids=queries.ids), scores)
    with pytest.raises(ValueError, match="expected scores of exactly these queries"):
        brittleness(model, train, queries.take([0]), scores)
    with pytest.raises(KeyError, match="no example has the id"):
        brittleness(model, train, queries, scores.group(["left", "right"] * 6))
    for most in (0, 12):
        with pytest.raises(ValueError, match="expected most between 1 and 11"):
            brittleness(model, train, queries, scores, most=most)


def test_two_processes_give_the_same_flips():
    model, train, queries, scores = tiny()
    sequential, parallel = (
        brittleness(model, train, queries, scores, most=6, retraining=uw.Retraining(processes=p)) for p in (1, 2)
    )
    assert sequential == parallel and "→" in sequential._repr_html_()


@pytest.mark.parametrize("size", [8, 24, 100])
def test_more_trainings_at_once_give_the_same_flips_in_fewer_rounds(size):
    model, train, queries, scores = game(queries=4, players=60, seed=5)
    one_by_one = brittleness(model, train, queries, scores, most=59, retraining=uw.Retraining(processes=1))
    stacked = StackedGame(model.worth, stack_size=size)
    at_once = brittleness(stacked, train, queries, scores, most=59, retraining=uw.Retraining(processes=1))
    assert [(f.size, f.removed, f.after) for f in at_once.flips] == [
        (f.size, f.removed, f.after) for f in one_by_one.flips
    ]
    first, *rounds = stacked.batches
    assert first == 1 and len(rounds) < 9 and max(rounds) <= size and at_once.trainings == 1 + sum(rounds)


def test_it_resumes_from_its_folder(tmp_path):
    model, train, queries, scores = game(queries=4, players=60, seed=5)
    first = brittleness(model, train, queries, scores, most=59, retraining=uw.Retraining(processes=1, folder=tmp_path))
    model.log.clear()
    assert (
        brittleness(model, train, queries, scores, most=59, retraining=uw.Retraining(processes=1, folder=tmp_path))
        == first
    )
    assert model.log == []


def test_a_small_net_is_searched_many_trainings_at_a_time():
    x, y = digits()
    train, queries = uw.Examples(x[:40], y[:40]), uw.Examples(x[40:44], y[40:44])
    training = uw.Training(lr=0.1, epochs=3, batch_size=20)
    model = uw.TorchModel.trained(lambda seed: mlp(), cross_entropy, train, training=training)
    scores = uw.GradDot().fit(model, train).attribute(queries)
    result = brittleness(model, train, queries, scores, most=20, retraining=uw.Retraining(processes=1))
    for flip in (f for f in result.flips if f.size):
        assert flips(model, train, queries.select([flip.query]), list(flip.removed))
        if flip.size > 1:
            assert not flips(model, train, queries.select([flip.query]), list(flip.removed[:-1]))

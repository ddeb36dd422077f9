"""Training examples moved by less than a grey level turn predictions; the box and the truth are kept."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

import upweight as uw

TIGHT = {"tol": 1e-10, "max_iter": 20_000}


def threes_and_eights(scale=1.0):
    """Nearly as many columns as examples, as in the paper: there small moves go far."""
    x, y = load_digits(return_X_y=True)
    where = np.flatnonzero((y == 3) | (y == 8))
    x, y = scale * x[where] / 16, (y[where] == 8).astype(int)
    return uw.Examples(x[:70], y[:70]), uw.Examples(x[70:], y[70:], ids=range(70, len(y)))


def doubtful(model, queries, k=1):
    right = np.array(model.predict(queries).predicted) == queries.y
    order = np.argsort(np.where(right, -model.measure(queries), -np.inf))[::-1]
    return queries.take(order[:k])


def test_the_attack_lowers_the_measurement_inside_its_box():
    train, queries = threes_and_eights()
    model = uw.explainable(LogisticRegression(C=100.0, **TIGHT).fit(train.x, train.y), train)
    query = doubtful(model, queries)
    attack = uw.attack(model, train, query, 2, pgd=uw.PGD(grey=1 / 16, radius=0.5, step=0.05, steps=10))
    moved = train.positions(attack.moved)
    others = np.setdiff1d(np.arange(70), moved)
    assert (attack.train.x[others] == train.x[others]).all()
    assert np.abs(attack.train.x - train.x).max() <= 0.5 / 16 + 1e-12 and attack.farthest <= 0.5 + 1e-9
    assert (np.rint(attack.train.x * 16) == train.x * 16).all(), "the same picture once it is rounded to grey levels"
    assert attack.train.x.min() >= 0 and attack.train.x.max() <= 1
    assert attack.measured[-1, 0] < attack.measured[0, 0]
    assert (np.diff(attack.measured[:, 0]) < 1e-9).mean() > 0.8
    truth = LogisticRegression(C=100.0, **TIGHT).fit(attack.train.x, train.y)
    log_probability = truth.predict_log_proba(query.x)[0, query.y[0]]
    assert attack.measured[-1, 0] == pytest.approx(log_probability, rel=1e-3)


def test_it_stops_when_every_prediction_has_turned():
    train, queries = threes_and_eights()
    model = uw.explainable(LogisticRegression(C=100.0, **TIGHT).fit(train.x, train.y), train)
    query = doubtful(model, queries)
    attack = uw.attack(model, train, query, 20, pgd=uw.PGD(grey=1 / 16, radius=4, step=0.5, steps=30))
    assert attack.flipped == query.ids.tolist() and len(attack.measured) < 31
    truth = LogisticRegression(C=100.0, **TIGHT).fit(attack.train.x, train.y)
    assert truth.predict(query.x)[0] != model.predictor.predict(query.x)[0]


def test_through_a_frozen_network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 20), nn.Tanh(), nn.Dropout(0.5)).double()
    train, queries = threes_and_eights()
    head = make_pipeline(uw.FrozenFeatures(net), LogisticRegression(C=100.0, **TIGHT)).fit(train.x, train.y)
    model = uw.explainable(head, train)
    attack = uw.perturb(model, train, queries.take([0]), k=1)
    assert attack.described == "inputs" and net.training
    place = int(train.positions(attack.example_ids)[0])
    column = int(np.abs(attack.gradients[0, 0]).argmax())
    ends = []
    for move in (1e-4, -1e-4):
        x = train.x.copy()
        x[place, column] += move
        refit = model.hypothetical(True).retrain(uw.Examples(x, train.y), np.ones(70))
        ends.append(refit.measure(queries.take([0]))[0])
    assert attack.gradients[0, 0, column] == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-3)
    query = doubtful(model, queries)
    hit = uw.attack(model, train, query, [0, 5], pgd=uw.PGD(grey=1 / 16, step=0.1, steps=3))
    assert hit.moved.tolist() == [0, 5] and hit.measured[-1, 0] < hit.measured[0, 0]


def test_the_settings_one_by_one_are_deprecated_and_do_the_same():
    train, queries = threes_and_eights()
    model = uw.explainable(LogisticRegression(C=100.0, **TIGHT).fit(train.x, train.y), train)
    settings = {"grey": 1 / 16, "radius": 0.4, "step": 0.2, "steps": 2, "bounds": (0.0, 0.9)}
    with pytest.warns(DeprecationWarning, match=r"write pgd=uw.PGD\(grey=…, ") as caught:
        before = uw.attack(model, train, queries.take([0]), 2, **settings)
    assert caught[0].filename == __file__
    now = uw.attack(model, train, queries.take([0]), 2, pgd=uw.PGD(**settings))
    np.testing.assert_array_equal(before.train.x, now.train.x)
    with pytest.raises(TypeError, match="pgd"):
        uw.attack(model, train, queries)
    with pytest.raises(TypeError, match="gray"):
        uw.attack(model, train, queries, gray=1)


def test_attacks_that_make_no_sense_are_refused():
    train, queries = threes_and_eights()
    model = uw.explainable(LogisticRegression(**TIGHT).fit(train.x, train.y), train)
    for bad in ({"grey": 0}, {"grey": 1, "radius": 0}, {"grey": 1, "step": -1}, {"grey": 1, "steps": 0}):
        with pytest.raises(ValueError, match="expected grey, radius and step above 0"):
            uw.attack(model, train, queries, pgd=uw.PGD(**bad))
    with pytest.raises(ValueError, match="at least one training example"):
        uw.attack(model, train, queries, 0, pgd=uw.PGD(grey=1))
    with pytest.raises(KeyError, match="no example has the id 'x'"):
        uw.attack(model, train, queries, ["x"], pgd=uw.PGD(grey=1))
    texts = ["good film", "bad film"] * 10
    words = uw.Examples(texts, np.arange(20) % 2)
    pipeline = make_pipeline(CountVectorizer(), LogisticRegression(**TIGHT)).fit(texts, words.y)
    with pytest.raises(TypeError, match="inputs that are an array of numbers"):
        uw.attack(uw.explainable(pipeline, words), words, words.take([0]), pgd=uw.PGD(grey=1))

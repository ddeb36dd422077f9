"""Necessity and sufficiency of training examples, against models that scikit-learn trains."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

import upweight as uw

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 3))
Y = (X[:, 0] + RNG.normal(size=70) > 0).astype(int)
TRAIN, QUERIES = uw.Examples(X[:60], Y[:60]), uw.Examples(X[60:64], Y[60:64], ids=range(100, 104))
SERIAL = uw.Retraining(processes=1)


@pytest.fixture(scope="module")
def model():
    return uw.explainable(LogisticRegression(tol=1e-10).fit(TRAIN.x, TRAIN.y), TRAIN)


@pytest.fixture(scope="module")
def scores(model):
    return uw.Influence().fit(model, TRAIN).attribute(QUERIES)


def log_probability(kept, query):
    estimator = LogisticRegression(tol=1e-10).fit(TRAIN.x[kept], TRAIN.y[kept])
    return estimator.predict_log_proba(QUERIES.x[query : query + 1])[0, QUERIES.y[query]]


def test_models_are_retrained_without_the_strongest_and_on_them_alone(model, scores):
    criteria = uw.example_criteria(model, TRAIN, QUERIES, {"influence": scores}, (0.1, 0.3), draws=2, retraining=SERIAL)
    assert criteria.sizes == (6, 18)
    for q in range(4):
        order = np.argsort(-scores.values[q])
        whole = log_probability(np.arange(60), q)
        for point, size in enumerate(criteria.sizes):
            assert criteria.necessity["influence"][q, point] == pytest.approx(
                whole - log_probability(np.sort(order[size:]), q), abs=1e-5
            )
            kept = []
            for label in (0, 1):
                of_label = order[TRAIN.y[order] == label]
                kept.append(of_label[: round(size * len(of_label) / 60)])
            alone = log_probability(np.sort(np.concatenate(kept)), q) - whole
            assert criteria.sufficiency["influence"][q, point] == pytest.approx(alone, abs=1e-5)
    need, enough = criteria.areas("influence")
    assert need == pytest.approx(criteria.necessity["influence"].mean())
    assert need > criteria.areas("random")[0] and enough > criteria.areas("random")[1]


def test_methods_that_agree_cost_no_more_trainings_and_a_comparison_has_them_all(model, scores):
    once = uw.example_criteria(model, TRAIN, QUERIES, {"a": scores}, (0.2,), draws=1, retraining=SERIAL)
    twice = uw.example_criteria(model, TRAIN, QUERIES, {"a": scores, "b": scores}, (0.2,), draws=1, retraining=SERIAL)
    assert once.trainings == twice.trainings == 1 + 2 * 4 + 2
    assert np.array_equal(twice.necessity["a"], twice.necessity["b"])
    truth = uw.retrain_truth(model, TRAIN, QUERIES, uw.subsets(TRAIN, 5), retraining=SERIAL)
    table = uw.compare({"influence": uw.Influence()}, model, TRAIN, QUERIES, truth)
    criteria = uw.example_criteria(model, TRAIN, QUERIES, table, (0.2,), draws=1, retraining=SERIAL)
    assert {row[0] for row in criteria.cells()} == {"influence", "chance", "similar", "random"}
    assert np.allclose(criteria.necessity["influence"], once.necessity["a"])
    assert set(criteria.as_dict()["methods"]) == set(criteria.necessity)


def test_targets_that_are_numbers_keep_the_strongest_of_all():
    y = X @ [1.0, 2.0, 3.0]
    train, queries = uw.Examples(X[:40], y[:40]), uw.Examples(X[40:42], y[40:42])
    model = uw.explainable(Ridge().fit(train.x, train.y), train)
    scores = uw.Influence().fit(model, train).attribute(queries)
    criteria = uw.example_criteria(model, train, queries, {"influence": scores}, (0.25,), draws=1, retraining=SERIAL)
    order = np.argsort(-scores.values[0])[:10]

    def loss(kept):
        return (Ridge().fit(train.x[kept], train.y[kept]).predict(queries.x[:1])[0] - queries.y[0]) ** 2

    change = loss(np.arange(40)) - loss(np.sort(order))
    ratio = criteria.sufficiency["influence"][0, 0] / change  # 1, or ½ if the loss is half the square
    assert min(abs(ratio - 1), abs(ratio - 0.5)) < 1e-4


def test_examples_of_weight_zero_are_in_no_set(model):
    weights = np.ones(60)
    weights[:20] = 0
    train = TRAIN.replaced(weights=weights)
    weighted = uw.explainable(LogisticRegression(tol=1e-10).fit(train.x, train.y, weights), train)
    scores = uw.Influence().fit(weighted, train).attribute(QUERIES)
    criteria = uw.example_criteria(weighted, train, QUERIES, {"a": scores}, (0.2,), draws=1, retraining=SERIAL)
    assert criteria.sizes == (8,) and np.isfinite(criteria.sufficiency["a"]).all()


def test_what_cannot_be_compared_is_refused(model, scores):
    for methods, shares in (({}, (0.2,)), ({"a": scores}, (0.0,)), ({"a": scores}, ())):
        with pytest.raises(ValueError, match="expected scores by name and shares between 0 and 1"):
            uw.example_criteria(model, TRAIN, QUERIES, methods, shares)
    with pytest.raises(ValueError, match="expected scores of exactly these queries"):
        uw.example_criteria(model, TRAIN, QUERIES.take([1, 0, 2, 3]), {"a": scores})
    with pytest.raises(ValueError, match="expected draws of at least 1"):
        uw.example_criteria(model, TRAIN, QUERIES, {"a": scores}, draws=0)
    criteria = uw.example_criteria(model, TRAIN, QUERIES, {"a": scores}, (0.2,), draws=1, retraining=SERIAL)
    with pytest.raises(KeyError, match="no method is called 'b'; there are a, random"):
        criteria.areas("b")

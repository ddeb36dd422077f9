"""Slopes of weights are those of real retraining, learned weights help on held-out data, and bad inputs are refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

import upweight as uw
from upweight.applications.last_layer import LastLayer, last_layer_slopes
from upweight.applications.weight_gains import paired_interval
from upweight.applications.weight_slopes import FreeWeights, InfluenceSlopes, MetagradientSlopes, RetrainingSlopes
from upweight.applications.weight_steps import FLOOR, WeightSteps, final_weights

NAMES = ["size", "age", "site"]


def table(n, seed, wrong=0.0):
    """Rows whose label follows from two columns; of the rows with site > 0, this share has the wrong label."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    y = (x[:, 0] + 0.5 * x[:, 1] + 0.3 * rng.normal(size=n) > 0).astype(int)
    is_wrong = (x[:, 2] > 0) & (rng.random(n) < wrong)
    return x, np.where(is_wrong, 1 - y, y), is_wrong


@pytest.fixture(scope="module")
def data():
    x, y, is_wrong = table(120, 0, wrong=0.8)
    train = uw.Examples(x, y, ids=[f"t{i}" for i in range(120)], names=NAMES)
    validation = uw.Examples(*table(60, 1)[:2], names=NAMES)
    held_out = uw.Examples(*table(300, 2)[:2], names=NAMES)
    return train, validation, held_out, is_wrong


@pytest.fixture(scope="module")
def model(data):
    return uw.explainable(LogisticRegression(tol=1e-10, max_iter=1000).fit(data[0].x, data[0].y), data[0])


def by_differences(model, train, validation, weights, chosen, step=1e-4):
    slopes = []
    for i in chosen:
        ends = []
        for change in (step, -step):
            moved = weights.copy()
            moved[i] += change
            ends.append(float(model.retrain(train, moved).measure(validation).mean()))
        slopes.append((ends[0] - ends[1]) / (2 * step))
    return np.array(slopes)


@pytest.mark.parametrize("own", [None, "whole"])
@pytest.mark.parametrize("kind", ["two", "three", "number"])
def test_slopes_by_influence_are_those_of_retraining(kind, own):
    rng = np.random.default_rng(3)
    x, y, _ = table(60, 4)
    targets = {"two": y, "three": y + (x[:, 2] > 0.5), "number": x[:, 0] + rng.normal(size=60)}[kind]
    weights = None if own is None else rng.integers(0, 3, 60).astype(float)
    estimator = Ridge(alpha=2.0) if kind == "number" else LogisticRegression(tol=1e-12, max_iter=5000)
    train = uw.Examples(x, targets, weights=weights)
    model = uw.explainable(estimator.fit(x, targets, weights), train)
    validation = uw.Examples(x[:20] + 0.1, targets[:20])
    start = rng.uniform(0.2, 1.8, 60)
    value, slopes = InfluenceSlopes(model, train, validation).at(start)
    chosen = [0, 7, 33, 59]
    np.testing.assert_allclose(
        slopes[chosen], by_differences(model, train, validation, start, chosen), rtol=1e-4, atol=1e-8
    )
    assert value == pytest.approx(float(model.retrain(train, start).measure(validation).mean()))


def test_slopes_of_groups_are_sums_and_those_by_retraining_agree(data, model):
    train, validation, *_ = data
    part = np.full(len(train), -1)
    part[:30], part[30:50] = 0, 1
    free = FreeWeights(part, ("a", "b"))
    weights = free.of_examples(np.array([0.8, 1.3]))
    assert weights[:30].tolist() == [0.8] * 30 and weights[60] == 1
    exact = free.summed(InfluenceSlopes(model, train, validation).at(weights).slopes)
    differences = RetrainingSlopes(model, train, validation, free, uw.Retraining(processes=1)).at(weights)
    np.testing.assert_allclose(free.summed(differences.slopes), exact, rtol=0.02)


def test_last_layer_slopes_are_those_of_a_refitted_layer():
    rng = np.random.default_rng(5)
    features, y = rng.normal(size=(30, 3)), rng.integers(0, 3, 30)
    other, other_y = rng.normal(size=(15, 3)), rng.integers(0, 3, 15)
    start, damping = rng.uniform(0.3, 1.7, 30), 0.3
    total = start.sum()

    def outputs(theta, x):
        scores = np.column_stack([x, np.ones(len(x))]) @ theta.reshape(4, 3)
        return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))

    def fitted(weights):
        def objective(theta):
            losses = -outputs(theta, features)[np.arange(30), y]
            return weights @ losses / total + damping / 2 * theta @ theta

        return minimize(objective, np.zeros(12), method="BFGS", options={"gtol": 1e-9}).x

    theta = fitted(start)
    layers = [LastLayer.of(x, np.exp(outputs(theta, x)), t) for x, t in ((features, y), (other, other_y))]
    slopes = last_layer_slopes(layers[0], start, layers[1], damping)
    for i in (0, 11, 29):
        ends = []
        for change in (0.01, -0.01):
            weights = start.copy()
            weights[i] += change
            ends.append(outputs(fitted(weights), other)[np.arange(15), other_y].mean())
        assert slopes[i] == pytest.approx((ends[0] - ends[1]) / 0.02, rel=0.01, abs=2e-6)


def test_weights_fall_where_labels_are_wrong_and_held_out_data_gain(data, model):
    train, validation, held_out, is_wrong = data
    result = uw.reweight(model, train, validation, held_out=held_out)
    assert result.slopes == "influence" and result.of == "examples" and len(result.course) == 22
    assert result.weights[is_wrong].mean() < 0.7 and result.weights[~is_wrong].mean() > 1
    assert ((result.weights >= 0) & (result.weights <= 2)).all()
    assert result.course[-1] > result.course[0]
    for other in ("uniform", "random", "highest losses dropped"):
        assert result.gain_beside(other).interval[0] > 0
    assert result.accuracy > result.gain_beside("uniform").accuracy
    assert any("site" in shift.condition for shift in result.shifts)
    refit = LogisticRegression(tol=1e-10, max_iter=1000).fit(train.x, train.y, result.example_weights)
    measured = np.log(refit.predict_proba(held_out.x)[np.arange(300), held_out.y]).mean()
    assert measured == pytest.approx(result.measured, abs=1e-6)
    np.testing.assert_array_equal(result.weighted.weights, result.example_weights)
    assert "better than uniform" in result.sentence and len(result.to_columns()["weight"]) == 120
    assert result.lowest(1)[0][1] <= result.highest(1)[0][1]
    with pytest.raises(KeyError, match="no gain is about 'other'"):
        result.gain_beside("other")


def test_order_of_the_training_set_changes_nothing(data, model):
    train, validation, *_ = data
    order = np.random.default_rng(0).permutation(len(train))
    fast = uw.Reweighting(steps=4)
    one = uw.reweight(model, train, validation, reweighting=fast)
    other = uw.reweight(model, train.take(order), validation, reweighting=fast)
    np.testing.assert_allclose(other.weights, one.weights[order], atol=1e-6)
    assert one.gains == () and "gain was not measured" in one.diagnostics["notes"][-1]


def test_a_harmful_group_loses_its_weight(data, model):
    train, validation, held_out, is_wrong = data
    groups = {"east": train.ids[is_wrong].tolist(), "west": train.ids[~is_wrong][:40].tolist()}
    result = uw.reweight(model, train, validation, held_out=held_out, groups=groups)
    weights = dict(zip(result.names, result.weights.tolist(), strict=True))
    assert weights["east"] < 0.3 < weights["west"] and result.shifts == ()
    others = ~np.isin(train.ids, [*groups["east"], *groups["west"]])
    assert (result.example_weights[others] == 1).all() and set(result.to_columns()) == {"group", "weight"}
    machine = SVC().fit(train.x, train.y)
    refitted = uw.refittable(machine, train)
    differences = uw.reweight(refitted, train, validation, groups=groups, reweighting=uw.Reweighting(steps=3, rate=0.3))
    assert differences.slopes == "retraining" and differences.weights[0] < differences.weights[1]


def test_unlabelled_examples_get_predicted_labels(data):
    x, y, _ = table(700, 8)
    train, validation = uw.Examples(x[:12], y[:12]), uw.Examples(x[12:62], y[12:62])
    model = uw.explainable(LogisticRegression(tol=1e-10).fit(train.x, train.y), train)
    unlabelled, held_out = uw.Examples(x[62:262]), uw.Examples(x[262:], y[262:])
    result = uw.reweight(model, train, validation, held_out=held_out, unlabelled=unlabelled)
    assert len(result.weights) == 200 and result.of == "unlabelled examples" and len(result.train) == 212
    assert (result.example_weights[:12] == 1).all()
    np.testing.assert_array_equal(result.train.y[12:], model.estimator.predict(unlabelled.x))
    assert {gain.weights for gain in result.gains} >= {"uniform", "one weight", "random"}
    assert result.names[0] == 12 and "new ones" in " ".join(result.diagnostics["notes"])
    wrong = result.train.y[12:] != y[62:262]
    assert result.weights[wrong].mean() < result.weights[~wrong].mean()
    single = float(result.gain_beside("one weight").described.split()[1])
    start = uw.reweight(model, train, validation, unlabelled=unlabelled, reweighting=uw.Reweighting(steps=1, rate=1e-9))
    np.testing.assert_allclose(start.weights, single, atol=2e-3)
    given = uw.reweight(model, train, validation, unlabelled=unlabelled.replaced(y=y[62:262]))
    np.testing.assert_array_equal(given.train.y[12:], y[62:262])


def test_boosted_trees_go_by_leaf_influence(data):
    train, validation, *_ = data
    trees = GradientBoostingClassifier(n_estimators=5, max_depth=1, random_state=0).fit(train.x, train.y)
    model = uw.explainable(trees, train)
    result = uw.reweight(model, train, validation, reweighting=uw.Reweighting(steps=4))
    assert result.slopes == "influence" and result.course[-1] >= result.course[0]


@pytest.fixture(scope="module")
def network(data):
    torch = pytest.importorskip("torch")
    train, *_ = data

    def loss(net, batch):
        return torch.nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")

    def fresh(seed):
        return torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)).double()

    training = uw.Training(lr=0.3, epochs=4, batch_size=30)
    return uw.TorchModel.trained(fresh, loss, train, training=training)


def test_metagradients_are_the_slopes_of_retraining(data, network):
    train, validation, *_ = data
    start = np.random.default_rng(0).uniform(0.3, 1.7, len(train))
    value, slopes = MetagradientSlopes(network, train, validation).at(start)
    chosen = [0, 50, 119]
    np.testing.assert_allclose(
        slopes[chosen], by_differences(network, train, validation, start, chosen), rtol=1e-4, atol=1e-9
    )
    assert value == pytest.approx(float(network.retrain(train, start).measure(validation).mean()))


@pytest.mark.parametrize("slopes", ["metagradient", "last layer"])
def test_weights_of_a_network(data, network, slopes):
    train, validation, held_out, is_wrong = data
    way = uw.Reweighting(slopes=slopes, steps=6, rate=0.2, retraining=uw.Retraining(processes=1, seeds=2))
    result = uw.reweight(network, train, validation, held_out=held_out, reweighting=way)
    assert result.weights[is_wrong].mean() < result.weights[~is_wrong].mean()
    assert result.gain_beside("uniform").trainings == 2 and result.gain_beside("uniform").gain > 0
    again = uw.reweight(network, train, validation, reweighting=way)
    np.testing.assert_array_equal(again.weights, result.weights)


def test_a_steered_training_is_the_usual_one_until_weights_change(data, network):
    train, *_ = data
    seen = []

    def same(model, weights):
        seen.append(model.parameters)
        return weights

    weights = np.linspace(0.5, 1.5, len(train))
    steered = network.retrain_steered(train, weights, same, 3)
    np.testing.assert_array_equal(steered.parameters, network.retrain(train, weights).parameters)
    assert len(seen) == 3 and not np.array_equal(seen[0], seen[2])
    other = network.retrain_steered(train, weights, lambda model, now: now * (now > 1), 1)
    assert not np.array_equal(other.parameters, steered.parameters)
    with pytest.raises(ValueError, match="more than 16 steps, got 16"):
        network.retrain_steered(train, weights, same, 16)


def test_steps_stay_within_their_bounds_and_small_slopes_hardly_move():
    steps, weights = WeightSteps(0.5, 2.0), np.ones(3)
    for _ in range(9):
        weights = steps.taken(weights, np.array([10.0, -10.0, 1e-6]))
    assert weights[0] == 2.0 and weights[1] == FLOOR and abs(weights[2] - 1) < 1e-5
    assert final_weights(weights).tolist()[1] == 0.0


def test_the_paired_interval_is_that_of_a_mean():
    differences = np.random.default_rng(0).normal(0.3, 1.0, size=(1, 400))
    low, high = paired_interval(differences)
    half = 1.645 * differences.std() / 20
    assert low == pytest.approx(differences.mean() - half, abs=0.015)
    assert high == pytest.approx(differences.mean() + half, abs=0.015)
    runs = np.repeat(np.array([[-1.0], [0.0], [1.0]]), 50, axis=1)
    assert paired_interval(runs)[1] - paired_interval(runs)[0] > 1  # the spread of trainings counts


def refused(kind, message, call):
    with pytest.raises(kind, match=re.escape(message)):
        call()


def test_bad_inputs_are_refused_in_a_sentence(data, model):
    train, validation, *_ = data

    def run(**changed):
        parts = {"train": train, "validation": validation, **changed}
        return uw.reweight(model, parts.pop("train"), parts.pop("validation"), **parts)

    overlap = uw.Examples(np.concatenate([validation.x, train.x[:6]]), np.concatenate([validation.y, train.y[:6]]))
    refused(
        ValueError,
        "not among the training ones, got 6 of 66 that are (60, 61, 62, 63, 64, …)",
        lambda: run(validation=overlap),
    )
    refused(ValueError, "held-out examples that are not among the validation", lambda: run(held_out=validation))
    refused(ValueError, "validation examples with labels", lambda: run(validation=uw.Examples(validation.x)))
    everything = {"all": train.ids.tolist()}
    refused(ValueError, "removing all leaves nothing to train on", lambda: run(groups=everything))
    both = {"a": ["t0", "t1"], "b": ["t1"]}
    refused(ValueError, "groups without common examples, got 't1' in 'a' and in 'b'", lambda: run(groups=both))
    refused(KeyError, "no example has the id 'x'", lambda: run(groups={"a": ["x"]}))
    refused(TypeError, "as a list, got the text 't0'", lambda: run(groups={"a": "t0"}))
    refused(TypeError, "expected groups as {name: ids}", lambda: run(groups=["t0"]))
    refused(ValueError, "got texts", lambda: run(unlabelled=uw.Examples(["a text", "another"])))
    refused(ValueError, "got numbers of shape (2,)", lambda: run(unlabelled=uw.Examples(np.ones((4, 2)))))
    named = uw.Examples(np.ones((4, 3)), ["a", "b", "a", "b"])
    refused(ValueError, "labels of unlabelled examples like those", lambda: run(unlabelled=named))
    near = uw.explainable(KNeighborsClassifier(3).fit(train.x, train.y), train)
    refused(TypeError, "got KNeighborsClassifier without", lambda: uw.reweight(near, train, validation))
    some = {"a": train.ids[:9].tolist()}
    refused(ValueError, "takes no sample weights", lambda: uw.reweight(near, train, validation, groups=some))
    refused(ValueError, "raised and lowered by 0.1", lambda: uw.reweight(near, train, validation, groups=some))
    refused(ValueError, "unlabelled ones, got 60 of 60", lambda: run(unlabelled=uw.Examples(validation.x)))
    ridge = uw.explainable(Ridge().fit(train.x, train.x[:, 0]), train.replaced(y=train.x[:, 0]))
    numbers = {"train": train.replaced(y=train.x[:, 0]), "validation": validation.replaced(y=validation.x[:, 0])}
    with pytest.raises(ValueError, match="that predicts numbers; pass unlabelled examples with labels"):
        uw.reweight(ridge, *numbers.values(), unlabelled=uw.Examples(np.ones((4, 3))))
    refused(TypeError, "upweight.Examples", lambda: run(validation=validation.x))
    only_last = uw.Reweighting(slopes="last layer")
    refused(TypeError, "Steerable", lambda: run(reweighting=only_last))
    refused(TypeError, "pass groups=", lambda: run(reweighting=uw.Reweighting(slopes="retraining")))
    refused(ValueError, "at least 2 held-out examples, got 1", lambda: run(held_out=uw.Examples([[9.0] * 3], [1])))
    refused(TypeError, "expected reweighting as uw.Reweighting", lambda: run(reweighting={"steps": 3}))
    refused(TypeError, "expected retraining as uw.Retraining", lambda: uw.Reweighting(retraining=3))
    with pytest.raises(ValueError, match="slopes to be one of"):
        uw.Reweighting(slopes="guess")
    for wrong in ({"rate": 0.0}, {"largest": 1.0}, {"steps": 0}, {"damping": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            uw.Reweighting(**wrong)


def test_a_few_copies_are_left_out_with_a_warning(data, model):
    train, _, held_out, _ = data
    x, y = np.concatenate([held_out.x, train.x[:1]]), np.concatenate([held_out.y, train.y[:1]])
    validation = uw.Examples(x, y, ids=[f"v{i}" for i in range(301)], names=NAMES)
    result = uw.reweight(model, train, validation, reweighting=uw.Reweighting(steps=1))
    assert "1 validation examples are copies of training ones" in result.diagnostics["warnings"][0]
    assert result.course[0] == pytest.approx(float(model.measure(held_out).mean()))


def test_weights_that_all_go_to_zero_are_refused(data):
    validation = data[1]
    opposite = validation.replaced(y=1 - validation.y)
    x, y, _ = table(40, 9)
    small = uw.Examples(x, y)
    model = uw.explainable(LogisticRegression(C=0.1, tol=1e-10, fit_intercept=False).fit(x, y), small)
    with pytest.raises(ValueError, match=r"went to zero|leave nothing to train on"):
        uw.reweight(model, small, opposite, reweighting=uw.Reweighting(rate=1.0, steps=30))

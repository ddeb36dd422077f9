"""Wrong labels are found, decisions about them are applied whole or not at all."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import upweight as uw
from network_families import cross_entropy, mlp
from upweight.core.model import Measurable, Predictions, Retrainable

NAMES = {0: "malignant", 1: "benign"}


@cache
def data(flips=0.1, seed=0):
    x, y = load_breast_cancer(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    x, y = x[order], y[order]
    wrong = rng.choice(400, round(400 * flips), replace=False)
    given = y.copy()
    given[wrong] = 1 - given[wrong]
    ids = np.array([f"p{i}" for i in range(len(y))])
    train = uw.Examples(x[:400], given[:400], ids=ids[:400], labels=NAMES)
    return train, uw.Examples(x[400:], y[400:], ids=ids[400:], labels=NAMES), y[:400], wrong


@cache
def cancer(flips=0.1, seed=0):
    train, held_out, truth, wrong = data(flips, seed)
    model = uw.explainable(make_pipeline(StandardScaler(), LogisticRegression()).fit(train.x, train.y), train)
    return model, train, held_out, truth, wrong


def caught(order, wrong):
    return len(set(order) & set(wrong.tolist()))


def test_finds_at_least_what_loss_and_self_influence_find():
    """On every share and draw of wrong labels."""
    for flips in (0.05, 0.1, 0.2, 0.3):
        for seed in range(2):
            model, train, _, _, wrong = cancer(flips, seed)
            suspects = uw.mislabeled(model, train, budget=0.1)
            found = caught(train.positions(suspects.ids).tolist(), wrong)
            for one in (suspects.loss, suspects.self_influence):
                assert found >= caught(np.argsort(-one)[:40].tolist(), wrong), (flips, seed)


def test_suggests_the_right_label_and_tells_the_harm():
    model, train, held_out, truth, wrong = cancer()
    suspects = uw.mislabeled(model, train, budget=40, evaluation=held_out)
    places = train.positions(suspects.ids)
    right = [s == truth[p] for s, p in zip(suspects.suggested, places.tolist(), strict=True) if p in wrong]
    assert np.mean(right) == 1.0
    assert (suspects.chances[:, 0] < suspects.chances[:, 1]).mean() > 0.9
    # The harm is that of leaving the example out, by real training.
    weights = np.ones(400)
    weights[places[0]] = 0.0
    base = model.retrain(train, np.ones(400)).measure(held_out).mean()
    without = model.retrain(train, weights).measure(held_out).mean()
    np.testing.assert_allclose(suspects.harm[0], without - base, rtol=0.02)
    rows = json.loads(json.dumps(suspects.as_dict(), allow_nan=False))["suspects"]
    assert rows[0]["label"] in NAMES.values() and rows[0]["suggested"] in NAMES.values()


def test_loss_without_the_example_is_that_of_a_refit():
    model, train, *_ = cancer()
    suspects = uw.mislabeled(model, train, budget=5)
    for place in train.positions(suspects.ids)[:3]:
        weights = np.ones(400)
        weights[place] = 0.0
        alone = -model.retrain(train, weights).measure(train.take([place]))[0]
        assert suspects.loss[place] + suspects.self_influence[place] == pytest.approx(alone, rel=1e-3)


def test_out_of_fold_answers_are_those_of_a_model_without_the_fold():
    model, train, *_ = cancer()
    found = uw.mislabeled(model, train, folds=4).held_out
    fold = found.places[1]
    kept = np.setdiff1d(np.arange(400), fold)
    alone = LogisticRegression().fit(model.predictor[:-1].transform(train.x[kept]), train.y[kept])
    said = alone.predict_log_proba(model.predictor[:-1].transform(train.x[fold]))
    np.testing.assert_allclose(found.loss[0, fold], -said[np.arange(len(fold)), train.y[fold]], rtol=1e-5)
    assert sorted(np.concatenate(found.places).tolist()) == list(range(400))
    assert found.helps and found.left_out.sum() > 20


def test_machines_without_probabilities_still_suggest():
    x, y = load_digits(n_class=3, return_X_y=True)
    given = y.copy()
    wrong = np.arange(0, 300, 15)
    given[wrong] = (given[wrong] + 1) % 3
    train = uw.Examples(x[:300] / 16, given[:300])
    model = uw.explainable(LinearSVC(tol=1e-8, max_iter=100_000).fit(train.x, train.y), train)
    suspects = uw.mislabeled(model, train, budget=20)
    assert caught(suspects.ids.tolist(), wrong) >= 18
    assert [s for s, i in zip(suspects.suggested, suspects.ids, strict=True) if i in wrong].count(None) == 0
    assert np.isnan(suspects.chances).all()


def test_networks_are_ranked_by_leave_one_out_loss_and_say_so():
    x, y = load_digits(n_class=3, return_X_y=True)
    given = y[:120].copy()
    given[[4, 50, 90]] = (given[[4, 50, 90]] + 1) % 3
    train = uw.Examples(x[:120] / 16, given)
    torch.manual_seed(0)
    net = mlp().double()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(150):
        optimiser.zero_grad()
        (torch.nn.functional.cross_entropy(net(torch.as_tensor(train.x)), torch.as_tensor(given))).backward()
        optimiser.step()
    suspects = uw.mislabeled(
        uw.TorchModel(net, cross_entropy, objective=uw.Objective("mean", l2=0.01)), train, budget=6
    )
    assert {4, 50, 90} <= set(suspects.ids.tolist())
    suggested = dict(zip(suspects.ids.tolist(), suspects.suggested, strict=True))
    assert [suggested[i] for i in (4, 50, 90)] == y[[4, 50, 90]].tolist()
    assert "leave-one-out loss alone" in suspects.notes[-1]


class OnlyTrains(Retrainable):
    """A model that can be trained again and has no gradients, as boosted trees are."""

    measurement = "−loss (nats)"
    parameters = np.zeros(1)

    def __init__(self, estimator):
        self.estimator = estimator

    def measure(self, queries):
        return self.estimator.predict_log_proba(queries.x)[np.arange(len(queries)), queries.y]

    def predict(self, examples):
        chances = self.estimator.predict_proba(examples.x)
        return Predictions(tuple(chances.argmax(axis=1).tolist()), (0, 1), chances)

    def retrain(self, train, weights, seed=0):
        return OnlyTrains(LogisticRegression().fit(train.x, train.y, sample_weight=weights))

    def with_parameters(self, parameters):
        return self


def test_models_without_gradients_are_ranked_out_of_fold():
    _, train, _, _, wrong = cancer()
    x = StandardScaler().fit_transform(train.x)
    train = uw.Examples(x, train.y)
    suspects = uw.mislabeled(OnlyTrains(LogisticRegression().fit(x, train.y)), train, budget=40)
    assert caught(suspects.ids.tolist(), wrong) >= 30
    assert "no gradients" in suspects.notes[0] and np.isnan(suspects.self_influence).all()


@pytest.mark.parametrize("budget", [0, -3, 2.5, float("nan"), True])
def test_a_budget_that_makes_no_sense_is_refused(budget):
    model, train, *_ = cancer()
    with pytest.raises(ValueError, match="budget"):
        uw.mislabeled(model, train, budget=budget)


def test_a_budget_beyond_the_set_is_the_whole_set():
    model, train, *_ = cancer()
    assert len(uw.mislabeled(model, train, budget=10_000).ids) == 400
    assert len(uw.mislabeled(model, train, budget=0.001).ids) == 1


def test_what_cannot_be_ranked_is_refused():
    model, train, held_out, *_ = cancer()
    with pytest.raises(ValueError, match="expected an evaluation set with labels"):
        uw.mislabeled(model, train, evaluation=uw.Examples(held_out.x))
    with pytest.raises(ValueError, match="between 2 and 400 folds"):
        uw.mislabeled(model, train, folds=1)
    margin = uw.explainable(model.predictor, train, uw.Margin())
    with pytest.raises(ValueError, match="expected a model that measures −loss"):
        uw.mislabeled(margin, train)
    with pytest.raises(ValueError, match="only 1: nothing can be wrong"):
        uw.mislabeled(model, train.take(train.y == 1))
    amounts = uw.Examples(train.x, train.x[:, 0] + 0.1 * train.x[:, 1])
    with pytest.raises(ValueError, match="labels that are classes"):
        uw.mislabeled(uw.explainable(Ridge().fit(amounts.x, amounts.y), amounts), amounts)
    rare = uw.Examples(train.x, np.where(np.arange(400) == 7, 2, train.y))
    trained = make_pipeline(StandardScaler(), LogisticRegression()).fit(rare.x, rare.y)
    with pytest.raises(ValueError, match="at least two examples, 2 has one"):
        uw.mislabeled(uw.explainable(trained, rare), rare)

    class Unable(Measurable):
        measurement = "−loss"
        measure = None
        predict = model.predict

    with pytest.raises(TypeError, match="mislabeled needs a model that is Differentiable"):
        uw.mislabeled(Unable(), train)


# ---- patches -------------------------------------------------------------------------------------------------------


def decided():
    _, train, *_ = cancer()
    other = {i: 1 - int(train.y[train.positions([i])[0]]) for i in ("p3", "p5")}
    return train, uw.Patch.of(train, {**other, "p9": "drop"})


def test_a_patch_does_what_it_says(tmp_path):
    train, patch = decided()
    patch.save(tmp_path / "patch.json")
    again = uw.Patch.load(tmp_path / "patch.json")
    assert again == patch
    fixed = again.applied(train)
    assert len(fixed) == 399 and "p9" not in fixed.ids
    differs = [i for i in fixed.ids.tolist() if fixed.label(i) != train.label(i)]
    assert differs == ["p3", "p5"]
    assert train.label("p3") == NAMES[patch.decisions[0].old], "the set handed in stays as it is"
    assert uw.Patch.of(train, {"p3": "benign"}).decisions[0].new == 1


def refusals():
    train, _ = decided()
    unknown = train.without(["p5"])
    y = train.y.copy()
    y[5] = 1 - y[5]
    stale = uw.Examples(train.x, y, ids=train.ids)
    y = train.y.copy()
    y[100] = 1 - y[100]
    elsewhere = uw.Examples(train.x, y, ids=train.ids)
    return {
        "names 1 of 3 ids that the training set does not have, e.g. 'p5'": unknown,
        "1 of 3 labels are no longer what they were": stale,
        "made for another training set": elsewhere,
    }


@pytest.mark.parametrize("match", refusals())
def test_a_patch_that_does_not_fit_changes_nothing(match, monkeypatch):
    _, patch = decided()
    train = refusals()[match]
    before = train.y.copy()
    for call in (patch.applied, patch.change):
        with pytest.raises(ValueError, match=match):
            call(train)
    model, *_ = cancer()
    monkeypatch.setattr("upweight.linear.model.LinearModel.retrain", None)
    with pytest.raises(ValueError, match=match):
        uw.repair(model, train, patch, train)
    assert (train.y == before).all()


def test_a_set_that_changed_elsewhere_is_named_on_purpose():
    _, patch = decided()
    elsewhere = refusals()["made for another training set"]
    assert len(patch.rebased(elsewhere).applied(elsewhere)) == 399
    with pytest.raises(ValueError, match="labels are no longer"):
        patch.rebased(refusals()["1 of 3 labels are no longer what they were"])


def test_the_order_of_the_set_does_not_matter():
    train, patch = decided()
    order = np.random.default_rng(0).permutation(400)
    assert len(patch.applied(train.take(order))) == 399


DAMAGED = {
    "not json": "nonsense",
    "another kind": '{"kind": "scores", "version": 1}',
    "a later version": '{"kind": "upweight patch", "version": 9}',
    "no list": '{"kind": "upweight patch", "version": 1, "train": {"checksum": "a", "examples": 3}}',
    "neither new nor dropped": '{"kind": "upweight patch", "version": 1, "train": {"checksum": "a", "examples": 3}, '
    '"decisions": [{"id": 1, "old": 0}]}',
    "an id twice": '{"kind": "upweight patch", "version": 1, "train": {"checksum": "a", "examples": 3}, '
    '"decisions": [{"id": 1, "old": 0, "new": 1}, {"id": 1, "old": 0, "drop": true}]}',
    "a list": "[1, 2]",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_is_no_patch_is_refused(name, tmp_path):
    path = tmp_path / "patch.json"
    path.write_text(DAMAGED[name])
    with pytest.raises(ValueError, match="no whole patch"):
        uw.Patch.load(path)


def test_labels_that_do_not_exist_are_refused():
    train, _ = decided()
    with pytest.raises(ValueError, match="expected one of the training labels"):
        uw.Patch.of(train, {"p3": "ham"})
    with pytest.raises(KeyError, match="no example has the id 'nobody'"):
        uw.Patch.of(train, {"nobody": 1})


def test_repairing_makes_the_model_better():
    model, train, held_out, truth, _ = cancer(0.2)
    suspects = uw.mislabeled(model, train, budget=0.2)
    right = {i: int(truth[p]) for i, p in zip(suspects.ids.tolist(), train.positions(suspects.ids), strict=True)}
    patch = uw.Patch.of(train, {i: label for i, label in right.items() if label != train.y[train.positions([i])[0]]})
    done = uw.repair(model, train, patch, held_out)
    assert done.after.measured > done.before.measured and done.after.accuracy >= done.before.accuracy
    fixed = patch.applied(train)
    alone = LogisticRegression(tol=1e-10, max_iter=10_000).fit(model.predictor[:-1].transform(fixed.x), fixed.y)
    assert done.after.accuracy == alone.score(model.predictor[:-1].transform(held_out.x), held_out.y)
    assert json.loads(json.dumps(done.as_dict()))["relabelled"] == len(patch.decisions)
    with pytest.raises(ValueError, match="expected an evaluation set with labels"):
        uw.repair(model, train, patch, uw.Examples(held_out.x))

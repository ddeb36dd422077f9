"""Label errors are found, a better label is suggested, and the harm of the errors is reported."""

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import upweight as uw
from support.flipped_labels import NAMES, cancer
from support.network_families import cross_entropy, mlp
from upweight.core.model import Measurable, Predictions, Retrainable


def caught(order, wrong):
    return len(set(order) & set(wrong.tolist()))


def test_finds_at_least_what_loss_and_self_influence_find():
    """On every share and draw of wrong labels."""
    for flips in (0.05, 0.1, 0.2, 0.3):
        for seed in range(2):
            model, train, _, _, wrong = cancer(flips, seed)
            suspects = uw.mislabeled(model, train, budget=0.1)
            found = caught(train.positions(suspects.ids).tolist(), wrong)
            for ranking in (suspects.loss, suspects.self_influence):
                assert found >= caught(np.argsort(-ranking)[:40].tolist(), wrong), (flips, seed)


def test_suggests_the_right_label_and_reports_the_harm():
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
    held_out = uw.mislabeled(model, train, folds=4).held_out
    fold = held_out.places[1]
    remaining = np.setdiff1d(np.arange(400), fold)
    alone = LogisticRegression().fit(model.predictor[:-1].transform(train.x[remaining]), train.y[remaining])
    log_probabilities = alone.predict_log_proba(model.predictor[:-1].transform(train.x[fold]))
    np.testing.assert_allclose(
        held_out.loss[0, fold], -log_probabilities[np.arange(len(fold)), train.y[fold]], rtol=1e-5
    )
    assert sorted(np.concatenate(held_out.places).tolist()) == list(range(400))
    assert held_out.helps and held_out.left_out.sum() > 20


def test_classifiers_without_probabilities_suggest_labels_too():
    x, y = load_digits(n_class=3, return_X_y=True)
    noisy = y.copy()
    wrong = np.arange(0, 300, 15)
    noisy[wrong] = (noisy[wrong] + 1) % 3
    train = uw.Examples(x[:300] / 16, noisy[:300])
    model = uw.explainable(LinearSVC(tol=1e-8, max_iter=100_000).fit(train.x, train.y), train)
    suspects = uw.mislabeled(model, train, budget=20)
    assert caught(suspects.ids.tolist(), wrong) >= 18
    assert [s for s, i in zip(suspects.suggested, suspects.ids, strict=True) if i in wrong].count(None) == 0
    assert np.isnan(suspects.chances).all()


def test_networks_are_ranked_by_leave_one_out_loss_and_say_so():
    x, y = load_digits(n_class=3, return_X_y=True)
    noisy = y[:120].copy()
    noisy[[4, 50, 90]] = (noisy[[4, 50, 90]] + 1) % 3
    train = uw.Examples(x[:120] / 16, noisy)
    torch.manual_seed(0)
    net = mlp().double()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(150):
        optimiser.zero_grad()
        (torch.nn.functional.cross_entropy(net(torch.as_tensor(train.x)), torch.as_tensor(noisy))).backward()
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
        return Predictions(tuple(chances.argmax(axis=1).tolist()), tuple(range(chances.shape[1])), chances)

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


def small(labels, **how):
    """Few rows of two columns, the first of which tells the class, with a logistic regression of them."""
    rng = np.random.default_rng(0)
    y = np.asarray(labels)
    train = uw.Examples(rng.normal(size=(len(y), 2)) + np.stack([y, 0 * y], axis=1), y, **how)
    return uw.explainable(LogisticRegression(tol=1e-8, max_iter=2000).fit(train.x, y), train), train


def test_few_rows_use_fewer_folds_and_say_so():
    model, train = small([0, 1, 0, 1])
    suspects = uw.mislabeled(model, train, budget=4)
    assert len(suspects.held_out.places) == 4 and any("4 folds and not 5" in note for note in suspects.notes)
    assert np.isfinite(suspects.held_out.loss).all() and sorted(suspects.ids.tolist()) == [0, 1, 2, 3]
    without = LogisticRegression(tol=1e-8).fit(train.x[1:], train.y[1:]).predict_proba(train.x[:1])[0, 0]
    assert suspects.held_out.loss[0, 0] == pytest.approx(-np.log(without), rel=1e-3)
    with pytest.raises(ValueError, match="expected between 2 and 4 folds, got 5"):
        uw.mislabeled(model, train, folds=5)
    model, train = small([0, 1] * 5)
    assert not any("folds" in note for note in uw.mislabeled(model, train).notes)


def test_the_only_example_of_a_class_is_in_no_fold_and_named():
    model, train = small([0, 1] * 20 + [2], ids=[f"r{i}" for i in range(41)])
    suspects = uw.mislabeled(model, train, budget=41)
    (note,) = [note for note in suspects.notes if "only one of class" in note]
    assert note.startswith("Example 'r40' is the only one of class 2")
    assert np.isnan(suspects.held_out.loss[:, 40]).all() and np.isfinite(suspects.held_out.loss[:, :40]).all()
    assert np.isfinite(suspects.score).all() and np.isfinite(suspects.chances).all()
    rank = suspects.ids.tolist().index("r40")
    probabilities = model.predict(train.take([40])).probabilities[0]
    assert suspects.chances[rank, 0] == probabilities[2] and suspects.suggested[rank] == int(probabilities[:2].argmax())
    assert suspects.as_dict()["suspects"][rank]["probability"] == probabilities[2]


def test_only_examples_of_their_class_are_ranked_without_gradients_too():
    _, train = small([0, 1] * 20 + [2])
    suspects = uw.mislabeled(OnlyTrains(LogisticRegression().fit(train.x, train.y)), train, budget=41)
    assert np.isfinite(suspects.score).all() and suspects.score[40] == suspects.score.max()


def test_rows_of_which_none_can_be_left_out_are_ranked_by_leave_one_out_loss():
    model, train = small([0, 1])
    suspects = uw.mislabeled(model, train, budget=2)
    assert suspects.held_out is None and any("No class has two examples" in note for note in suspects.notes)
    with pytest.raises(ValueError, match="expected a class with at least two examples"):
        uw.mislabeled(OnlyTrains(LogisticRegression().fit(train.x, train.y)), train)


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
    with pytest.raises(ValueError, match="only 1, so no label can be wrong"):
        uw.mislabeled(model, train.take(train.y == 1))

    class Unable(Measurable):
        measurement = "−loss"
        measure = None
        predict = model.predict

    with pytest.raises(TypeError, match="mislabeled needs a model that is Differentiable"):
        uw.mislabeled(Unable(), train)


def trainings_on_folds(train):
    """How many trainings on folds were done, and the suspects."""
    done = []
    model = uw.explainable(LogisticRegression(tol=1e-8).fit(train.x, train.y), train)
    retraining = uw.Retraining(processes=1, progress=lambda stage, at, total: done.append((stage, at, total)))
    suspects = uw.mislabeled(model, train, retraining=retraining)
    steps = [at for stage, at, _ in done if stage == "retrain"]
    assert steps[-1] == 10  # the stage ends
    return len(set(steps) - {0}), suspects


def test_the_second_round_ends_after_a_fold_that_shows_that_it_does_not_help():
    """Noise at random hardly moves a model of two columns; one of thirty columns learns it, until it is left out."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 2))
    y = (x[:, 0] + 0.1 * rng.normal(size=1500) > 0).astype(int)
    at_random = np.where(rng.random(1500) < 0.25, 1 - y, y)
    trainings, suspects = trainings_on_folds(uw.Examples(x, at_random))
    assert trainings == 7 and not suspects.held_out.helps  # the first round, a fold, and the end of the stage
    assert np.isfinite(suspects.held_out.loss[0]).all() and np.isfinite(suspects.held_out.loss[1]).sum() == 300
    _, train, _, _, _ = cancer(0.3, 0)
    trainings, suspects = trainings_on_folds(train)
    assert trainings == 10 and suspects.held_out.helps and np.isfinite(suspects.held_out.loss).all()


@pytest.mark.parametrize("absent", [0, 1, 3])
def test_a_class_whose_only_example_has_weight_0_shifts_no_other_class(absent):
    """Copies of the estimator that do not see the class have fewer outputs."""
    x = np.random.default_rng(0).normal(size=(80, 4))
    order = [label for label in range(4) if label != absent]
    y = np.array(order)[np.digitize(x[:, 0], [-0.4, 0.4])]
    y[0] = absent
    weights = np.ones(80)
    weights[0] = 0.0
    estimator = LogisticRegression(tol=1e-8, max_iter=9999).fit(x, y, sample_weight=weights)
    train = uw.Examples(x, y, weights=weights)
    suspects = uw.mislabeled(uw.explainable(estimator, train), train)
    x, y = x[1:], y[1:]
    others = uw.Examples(x, y, ids=range(1, 80))
    model = uw.explainable(LogisticRegression(tol=1e-8, max_iter=9999).fit(x, y), others)
    agreed = np.intersect1d(suspects.ids[:10], uw.mislabeled(model, others).ids[:10])
    assert len(agreed) >= 7

"""Every application on a network that says how it was trained, and what a training function of one's own cannot do."""

from functools import cache

import numpy as np
import pytest
import torch

import upweight as uw
from support.network_families import cross_entropy, digits, mlp
from upweight.applications.explain import explain


@cache
def task():
    x, y = digits()
    train = uw.Examples(x[:60], y[:60])
    queries = uw.Examples(x[60:72], y[60:72], ids=range(60, 72))
    torch.manual_seed(0)
    training = uw.Training(lr=0.1, momentum=0.9, weight_decay=0.01, epochs=20, batch_size=20)
    return uw.TorchModel.trained(mlp().double(), cross_entropy, train, training=training), train, queries


def test_explain_with_its_check():
    model, train, queries = task()
    explanation = explain(model, train, queries.take([0]), removals=2)
    assert (
        explanation.check is not None
        and len(explanation.check.removals) == 2
        and np.isfinite(explanation.check.actual).all()
    )


def test_mislabeled_with_held_out_answers_and_a_patch():
    _, train, queries = task()
    y = train.y.copy()
    y[[4, 30, 50]] = (y[[4, 30, 50]] + 1) % 3
    flipped = uw.Examples(train.x, y)
    torch.manual_seed(0)
    training = uw.Training(lr=0.1, momentum=0.9, weight_decay=0.01, epochs=20, batch_size=20)
    model = uw.TorchModel.trained(mlp().double(), cross_entropy, flipped, training=training)
    suspects = uw.mislabeled(model, flipped, budget=6, folds=3, evaluation=queries)
    assert {4, 30, 50} <= set(suspects.ids.tolist()) and suspects.held_out is not None
    repaired = uw.repair(model, flipped, uw.Patch.of(flipped, {i: int(train.y[i]) for i in (4, 30, 50)}), queries)
    assert repaired.after.measured > repaired.before.measured


def test_mislabeled_reports_whose_probabilities_it_shows_and_that_losses_only_rank(tmp_path):
    model, train, queries = task()
    alone = uw.TorchModel(model.network.net, cross_entropy)
    suspects = uw.mislabeled(alone, train, budget=3, evaluation=queries)
    assert suspects.held_out is None and any("only their order means something" in note for note in suspects.notes)
    probabilities = alone.predict(train.select(suspects.ids)).probabilities
    np.testing.assert_allclose(suspects.chances[:, 0], probabilities[np.arange(3), train.select(suspects.ids).y])
    page = uw.write_page(tmp_path / "review.html", suspects).read_text(encoding="utf-8")
    assert "Probabilities come from the model itself" in page and "were not trained with the label" not in page
    again = uw.write_page(tmp_path / "again.html", uw.mislabeled(model, train, budget=3, folds=2))
    assert "were not trained with the label" in again.read_text(encoding="utf-8")


def test_slices_are_verified_by_training_without_them():
    model, train, queries = task()
    slices = uw.slices(
        model, train, queries, uw.Slicing({"early": np.arange(60) < 20}, {"all": queries.ids}), removals=2
    )
    weights = np.ones(60)
    weights[slices.groups.members[0]] = 0.0
    truth = (model.measure(queries) - model.retrain(train, weights).measure(queries)).mean()
    assert slices.actual[0, 0] == pytest.approx(truth)


def test_what_if_with_new_labels_is_really_done():
    model, train, queries = task()
    change = uw.Change(relabel={3: (train.y[3] + 1) % 3}, remove=[7])
    effects = uw.what_if(model, train, queries, change, removals=0)
    y, weights = train.y.copy(), np.ones(60)
    y[3], weights[7] = (y[3] + 1) % 3, 0.0
    truth = model.retrain(uw.Examples(train.x, y), weights).measure(queries) - model.measure(queries)
    np.testing.assert_allclose(effects.actual[:, 0], truth, atol=1e-10)


def test_perturb_gives_gradients_of_a_network_and_attack_lowers_its_measurement():
    model, train, queries = task()
    query = queries.take([int(model.measure(queries).argmin())])
    perturbation = uw.perturb(model, train, query, examples=[5, 9])
    assert perturbation.gradients.shape == (1, 2, 64) and perturbation.reach.shape == (1, 2)
    hit = uw.attack(model, train, query, 3, pgd=uw.PGD(grey=1 / 16, step=0.25, steps=3))
    assert hit.measured[-1, 0] < hit.measured[0, 0] and hit.farthest <= 0.5 + 1e-6


def test_a_training_function_cannot_see_new_labels_or_inputs():
    recipe, train, queries = task()

    def again(weights, seed):
        return recipe.retrain(train, weights, seed).network.net

    model = uw.TorchModel(recipe.network.net, cross_entropy, objective=uw.Objective("mean", l2=0.01), training=again)
    assert uw.what_if(model, train, queries, uw.Change(remove=[3]), removals=0).actual is not None
    relabel = uw.Change(relabel={3: (train.y[3] + 1) % 3})
    new = uw.Change(add=uw.Examples(train.x[:1], train.y[:1], ids=[1000]))
    for change in (relabel, new):
        with pytest.raises(TypeError, match="training function of this TorchModel takes weights only"):
            uw.what_if(model, train, queries, change)
    assert uw.what_if(model, train, queries, relabel, removals=None).actual is None
    with pytest.raises(TypeError, match="a patch with new labels changes labels or inputs"):
        uw.repair(model, train, uw.Patch.of(train, {3: int((train.y[3] + 1) % 3)}), queries)
    assert len(uw.repair(model, train, uw.Patch.of(train, {3: "drop"}), queries).train) == 59
    with pytest.raises(TypeError, match="attack changes labels or inputs"):
        uw.attack(model, train, queries, 1, pgd=uw.PGD(grey=1 / 16))

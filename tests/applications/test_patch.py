"""A patch holds decisions about labels, and is applied to its training set as a whole or not at all."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import upweight as uw
from support.flipped_labels import NAMES, cancer


def decided():
    _, train, *_ = cancer()
    other = {i: 1 - int(train.y[train.positions([i])[0]]) for i in ("p3", "p5")}
    return train, uw.Patch.of(train, {**other, "p9": "drop"})


def test_a_patch_relabels_and_drops_what_it_lists(tmp_path):
    train, patch = decided()
    patch.save(tmp_path / "patch.json")
    again = uw.Patch.load(tmp_path / "patch.json")
    assert again == patch
    fixed = again.applied(train)
    assert len(fixed) == 399 and "p9" not in fixed.ids
    differs = [i for i in fixed.ids.tolist() if fixed.label(i) != train.label(i)]
    assert differs == ["p3", "p5"]
    assert train.label("p3") == NAMES[patch.decisions[0].old], "the training set passed in is unchanged"
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
        "1 of the 3 ids in the patch are not in the training set, e.g. 'p5'": unknown,
        "1 of 3 labels have changed since": stale,
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


def test_a_set_that_changed_elsewhere_needs_a_rebased_patch():
    _, patch = decided()
    elsewhere = refusals()["made for another training set"]
    assert len(patch.rebased(elsewhere).applied(elsewhere)) == 399
    with pytest.raises(ValueError, match="labels have changed since"):
        patch.rebased(refusals()["1 of 3 labels have changed since"])


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
def test_a_file_that_is_not_a_patch_is_refused(name, tmp_path):
    path = tmp_path / "patch.json"
    path.write_text(DAMAGED[name])
    with pytest.raises(ValueError, match="not a complete patch"):
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
    repaired = uw.repair(model, train, patch, held_out)
    assert repaired.after.measured > repaired.before.measured and repaired.after.accuracy >= repaired.before.accuracy
    fixed = patch.applied(train)
    alone = LogisticRegression(tol=1e-10, max_iter=10_000).fit(model.predictor[:-1].transform(fixed.x), fixed.y)
    assert repaired.after.accuracy == alone.score(model.predictor[:-1].transform(held_out.x), held_out.y)
    assert json.loads(json.dumps(repaired.as_dict()))["relabelled"] == len(patch.decisions)
    with pytest.raises(ValueError, match="expected an evaluation set with labels"):
        uw.repair(model, train, patch, uw.Examples(held_out.x))

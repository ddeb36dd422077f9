from dataclasses import replace

import numpy as np
import pytest
from game import game
from refitted import effect, setting

import upweight as uw
from upweight.evaluate.ceiling import noise_ceiling
from upweight.evaluate.removals import named, random_groups, singles, strongest, subsets
from upweight.evaluate.resume import retrain_truth
from upweight.evaluate.truth import Truth


def truth_of(model, train, queries, removals, **more):
    return retrain_truth(model, train, queries, removals, processes=1, **more)


def test_effects_are_those_of_training_twice():
    model, train, queries, _, _ = setting()
    truth = truth_of(model, train, queries, [*singles(train, ["t3"]), *subsets(train, 2, 0.8)])
    for column, one in enumerate(truth.removals):
        np.testing.assert_allclose(truth.actual[:, column], effect(model, train, queries, one.ids), atol=1e-8)
    assert truth.deterministic and truth.warnings == [] and truth.done.all()


def test_subsets_keep_their_share_and_come_from_their_seed():
    train = game()[1]
    drawn = subsets(train, 20, 0.8, seed=3)
    assert {len(set(one.ids)) for one in drawn} == {6} and len({one.ids for one in drawn}) == 20
    assert drawn == subsets(train, 20, 0.8, seed=3) != subsets(train, 20, 0.8, seed=4)
    assert [len(one.ids) for one in subsets(train, 1, 0.001)] == [29] and subsets(train, 1, 0.999)[0].kind == "one"
    for count, share in ((0, 0.5), (3, 0.0), (3, 1.0)):
        with pytest.raises(ValueError, match="at least one subset that keeps a share between 0 and 1"):
            subsets(train, count, share)


def test_predictions_are_sums_of_scores():
    model, train, queries, scores = game()
    truth = truth_of(model, train, queries, subsets(train, 7))
    np.testing.assert_allclose(truth.predicted(scores), truth.actual, atol=1e-12)
    shuffled = np.random.default_rng(0).permutation(30)
    turned = replace(scores, values=scores.values[:, shuffled], train_ids=scores.train_ids[shuffled])
    np.testing.assert_allclose(truth.predicted(turned), truth.actual, atol=1e-12)


def test_every_seed_is_a_training_of_its_own_and_effects_are_their_mean():
    model, train, queries, _ = game(noise=0.5)
    truth = truth_of(model, train, queries, singles(train, ["p1", "p2"]), seeds=[4, 9])
    weights = np.ones(30)
    weights[1] = 0
    each = [
        model.retrain(train, np.ones(30), s).measure(queries) - model.retrain(train, weights, s).measure(queries)
        for s in (4, 9)
    ]
    np.testing.assert_allclose(truth.actual[:, 0], np.mean(each, axis=0))
    assert truth.seeds == (4, 9) and truth.deterministic is False and truth.warnings == []


def test_one_seed_of_a_noisy_training_is_told():
    model, train, queries, _ = game(noise=0.5)
    truth = truth_of(model, train, queries, singles(train, ["p1", "p2"]))
    other = model.retrain(train, np.ones(30), 1).measure(queries)
    assert truth.facts["seed_noise"] == pytest.approx(np.abs(truth.base[0] - other).max())
    assert truth.deterministic is False
    note = noise_ceiling(truth).note
    assert f"another moves the measurement by up to {truth.facts['seed_noise']:.2g}" in note and "seeds=5" in note


def test_rounding_is_no_effect():
    model, train, queries, _ = game()
    model.worth[:] = 1000.0
    model.worth[:, 3] = 1e-12
    assert (truth_of(model, train, queries, singles(train, ["p3"])).actual == 0).all()


def test_save_and_load_give_the_same_truth(tmp_path):
    model, train, queries, scores = game(noise=0.1)
    truth = truth_of(model, train, queries, [*singles(train, ["p5"]), *subsets(train, 3)], seeds=2)
    truth.save(tmp_path / "truth.npz")
    again = Truth.load(tmp_path / "truth.npz")
    np.testing.assert_array_equal(again.after, truth.after)
    np.testing.assert_array_equal(again.actual, truth.actual)
    assert [(r.name, r.kind, set(r.ids)) for r in again.removals] == [
        (r.name, r.kind, set(r.ids)) for r in truth.removals
    ]
    assert (again.seeds, again.facts, again.as_dict()) == (truth.seeds, truth.facts, truth.as_dict())
    np.testing.assert_allclose(again.predicted(scores), truth.predicted(scores))
    again.require(model, train, queries)


def test_a_run_that_was_broken_off_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("upweight.evaluate.resume.TOGETHER", 4)
    model, train, queries, _ = game(noise=0.1)
    whole = truth_of(model, train, queries, singles(train), seeds=2)
    count, path = len(model.log), tmp_path / "truth.npz"

    def broken(done, total):
        if done == 41:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        truth_of(model, train, queries, singles(train), seeds=2, path=path, progress=broken)
    assert "22 trainings to do" in repr(Truth.load(path))  # writes are of four at most, and of one seed
    model.log.clear()
    seen = []
    again = truth_of(model, train, queries, singles(train), seeds=2, path=path, progress=lambda *a: seen.append(a))
    np.testing.assert_array_equal(again.after, whole.after)
    assert seen[0] == (39, 60) and seen[-1] == (60, 60)
    assert len(model.log) == 22 + 6 < count  # and one training on everything per write
    model.log.clear()
    truth_of(model, train, queries, singles(train), seeds=2, path=path, progress=lambda *a: seen.append(a))
    assert model.log == [] and seen[-1] == (60, 60)


def test_a_path_with_another_truth_is_refused(tmp_path):
    model, train, queries, _ = game()
    path = tmp_path / "truth.npz"
    truth_of(model, train, queries, subsets(train, 5), path=path)
    for other in (subsets(train, 6), subsets(train, 5, seed=1), subsets(train, 5, 0.6)):
        with pytest.raises(ValueError, match="holds the truth of 5 other removals"):
            truth_of(model, train, queries, other, path=path)
    with pytest.raises(ValueError, match="other removals or other seeds"):
        truth_of(model, train, queries, subsets(train, 5), path=path, seeds=2)
    with pytest.raises(ValueError, match="of another set of queries"):
        truth_of(model, train, queries.take([0, 1]), subsets(train, 5), path=path)
    path.write_bytes(b"half a file")
    with pytest.raises(ValueError, match="is damaged"):
        truth_of(model, train, queries, subsets(train, 5), path=path)


def test_a_truth_knows_whose_it_is():
    model, train, queries, _, scores = setting()
    truth = truth_of(model, train, queries, random_groups(train, 3, 0))
    truth.require(model, train, queries)
    with pytest.raises(ValueError, match="of another set of queries"):
        truth.require(model, train, queries.take([0, 1, 2]))
    with pytest.raises(ValueError, match="of another model or training set"):
        truth.require(model.with_parameters(model.parameters + 1), train, queries)
    with pytest.raises(ValueError, match="expected scores of exactly these queries"):
        truth.predicted(replace(scores, query_ids=scores.query_ids[::-1]))
    with pytest.raises(ValueError, match="there is none for"):
        truth.predicted(replace(scores, values=scores.values[:, :9], train_ids=scores.train_ids[:9]))


def test_removals_that_the_model_refuses_are_left_out_by_name():
    model, train, queries, _ = game(refuses=frozenset({4, 17}))
    truth = truth_of(model, train, queries, singles(train))
    assert set(truth.facts["refused"]) == {"p4", "p17"} and len(truth.removals) == 28
    assert truth.done.all() and "Removal 'p4' was left out: nobody of class 'king' is left" in truth.warnings
    np.testing.assert_allclose(truth.actual[:, 4], model.worth[:, 5])
    with pytest.raises(ValueError, match="king"):
        truth_of(model, train, queries, singles(train), strict=True)
    for seeds in (1, 2):
        with pytest.raises(ValueError, match="cannot be trained without any of the removals: nobody"):
            truth_of(model, train, queries, singles(train, ["p4"]), seeds=seeds)


def test_a_model_that_cannot_be_trained_at_all_is_its_own_error():
    model, train, queries, _, _ = setting()
    other = uw.Examples(np.random.default_rng(0).standard_normal((120, 5)), train.y, ids=train.ids)
    with pytest.raises(ValueError, match="expected the data that LogisticRegression was fitted on"):
        truth_of(model, other, queries, singles(train, ["t1", "t2"]))


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_measurement_that_is_no_number_never_becomes_one():
    model, train, queries, _ = game()
    model.worth[:, 2] = np.inf
    model.with_parameters(None)
    with pytest.raises(ValueError, match="any of the removals: the measurement came out NaN or infinite"):
        truth_of(model, train, queries, singles(train, ["p1"]))


def test_bad_requests_are_refused():
    model, train, queries, scores = game()
    for removals in ([], [*singles(train, ["p1"]), *singles(train, ["p1"])]):
        with pytest.raises(ValueError, match="expected removals of different names"):
            truth_of(model, train, queries, removals)
    for seeds in (0, [], [3, 3]):
        with pytest.raises(ValueError, match="expected at least one seed, and each once"):
            truth_of(model, train, queries, singles(train), seeds=seeds)
    with pytest.raises(ValueError, match="expected at least one example in removal 'g'"):
        named({"g": []})
    with pytest.raises(ValueError, match="expected at least one removal"):
        strongest(scores, train, 0, 0)

from dataclasses import replace

import numpy as np
import pytest

import upweight as uw
from support.additive_game import game
from support.logistic_fit import logistic_fit, retraining_effect
from upweight.evaluate.noise_ceiling import noise_ceiling
from upweight.evaluate.removals import default_removals, named_removals, random_groups, singles, subsets
from upweight.evaluate.retrain_truth import retrain_truth
from upweight.evaluate.truth import Truth


def truth_of(model, train, queries, removals, strict=False, **more):
    retraining = uw.Retraining(processes=1, **more)
    return retrain_truth(model, train, queries, removals, strict=strict, retraining=retraining)


def test_effects_are_those_of_training_twice():
    model, train, queries, _, _ = logistic_fit()
    truth = truth_of(model, train, queries, [*singles(train, ["t3"]), *subsets(train, 2, 0.8)])
    for column, removal in enumerate(truth.removals):
        np.testing.assert_allclose(
            truth.actual[:, column], retraining_effect(model, train, queries, removal.ids), atol=1e-8
        )
    assert truth.deterministic and truth.warnings == []


def test_subsets_keep_their_share_and_come_from_their_seed():
    train = game()[1]
    drawn = subsets(train, 20, 0.8, seed=3)
    assert {len(set(removal.ids)) for removal in drawn} == {6} and len({removal.ids for removal in drawn}) == 20
    assert drawn == subsets(train, 20, 0.8, seed=3) != subsets(train, 20, 0.8, seed=4)
    assert [len(removal.ids) for removal in subsets(train, 1, 0.001)] == [29] and subsets(train, 1, 0.999)[
        0
    ].kind == "one"
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


def test_one_seed_of_a_noisy_training_is_noted():
    model, train, queries, _ = game(noise=0.5)
    truth = truth_of(model, train, queries, singles(train, ["p1", "p2"]))
    other = model.retrain(train, np.ones(30), 1).measure(queries)
    assert truth.facts["seed_noise"] == pytest.approx(np.abs(truth.base[0] - other).max())
    assert truth.deterministic is False
    note = noise_ceiling(truth).note
    assert f"another moves the measurement by up to {truth.facts['seed_noise']:.2g}" in note and "seeds=5" in note


def test_rounding_is_not_an_effect():
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


@pytest.mark.parametrize("facts", [{"refused": 3}, {"reproduction": {"warnings": 3}}, {"seed_noise": "x"}])
def test_facts_of_another_type_are_refused(facts, tmp_path):
    model, train, queries, _ = game()
    truth = truth_of(model, train, queries, singles(train, ["p5"]))
    replace(truth, facts={**truth.facts, **facts}).save(tmp_path / "truth.npz")
    with pytest.raises(ValueError, match=r"truth\.npz is damaged"):
        Truth.load(tmp_path / "truth.npz")


def test_an_interrupted_run_resumes_where_it_stopped(tmp_path):
    model, train, queries, _ = game(noise=0.1)
    whole = truth_of(model, train, queries, singles(train), seeds=2)
    count, folder = len(model.log), tmp_path / "kept"

    def broken(stage, done, total):
        if done == 41:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        truth_of(model, train, queries, singles(train), seeds=2, folder=folder, progress=broken)
    model.log.clear()
    reports = []
    again = truth_of(
        model, train, queries, singles(train), seeds=2, folder=folder, progress=lambda *a: reports.append(a)
    )
    np.testing.assert_array_equal(again.after, whole.after)
    assert reports[0] == ("retrain", 30, 60) and reports[-1] == ("retrain", 60, 60) and reports == sorted(reports)
    assert count == 2 * 31 and len(model.log) == count - 31 - 12  # one seed; everything and eleven of the other
    model.log.clear()
    truth_of(model, train, queries, singles(train), seeds=2, folder=folder)
    assert model.log == []


def test_a_folder_serves_more_removals_more_seeds_and_other_queries(tmp_path, logged):
    model, train, queries, _ = game(noise=0.1)
    first = truth_of(model, train, queries, subsets(train, 5), folder=tmp_path)
    model.log.clear()
    more = truth_of(model, train, queries, subsets(train, 7), seeds=2, folder=tmp_path)
    np.testing.assert_array_equal(more.after[:1, :, :5], first.after)
    assert len(model.log) == 2 + 7  # two subsets of the first seed, seven of the second, which everything is there of
    assert logged.getvalue() == ""
    few = truth_of(model, train, queries.take([0, 1]), subsets(train, 5), folder=tmp_path)
    np.testing.assert_allclose(few.after, first.after[:, :2])
    assert "belongs to this model, these data and queries: everything is retrained" in logged.getvalue()


def test_a_refused_removal_is_refused_again_after_resuming(tmp_path):
    model, train, queries, _ = game(refuses=frozenset({4, 17}))
    first, again = (truth_of(model, train, queries, singles(train), folder=tmp_path) for _ in range(2))
    assert first.facts == again.facts and set(again.facts["refused"]) == {"p4", "p17"}
    np.testing.assert_array_equal(first.after, again.after)


def test_a_truth_refuses_another_model_or_other_data():
    model, train, queries, _, scores = logistic_fit()
    truth = truth_of(model, train, queries, random_groups(train, 3, 0))
    truth.require(model, train, queries)
    with pytest.raises(ValueError, match="made with another set of queries"):
        truth.require(model, train, queries.take([0, 1, 2]))
    with pytest.raises(ValueError, match="made with other parameters"):
        truth.require(model.with_parameters(model.parameters + 1), train, queries)
    with pytest.raises(ValueError, match="expected scores of exactly these queries"):
        truth.predicted(replace(scores, query_ids=scores.query_ids[::-1]))
    with pytest.raises(ValueError, match="got none for"):
        truth.predicted(replace(scores, values=scores.values[:, :9], train_ids=scores.train_ids[:9]))


def test_removals_that_the_model_refuses_are_left_out_by_name():
    model, train, queries, _ = game(refuses=frozenset({4, 17}))
    truth = truth_of(model, train, queries, singles(train))
    assert set(truth.facts["refused"]) == {"p4", "p17"} and len(truth.removals) == 28
    assert (
        np.isfinite(truth.after).all() and "Removal 'p4' was left out: nobody of class 'king' is left" in truth.warnings
    )
    np.testing.assert_allclose(truth.actual[:, 4], model.worth[:, 5])
    with pytest.raises(ValueError, match="king"):
        truth_of(model, train, queries, singles(train), strict=True)
    for seeds in (1, 2):
        with pytest.raises(ValueError, match="cannot be trained without any of the removals: nobody"):
            truth_of(model, train, queries, singles(train, ["p4"]), seeds=seeds)


def test_a_model_that_cannot_be_trained_at_all_is_its_own_error():
    model, train, queries, _, _ = logistic_fit()
    other = uw.Examples(np.random.default_rng(0).standard_normal((120, 5)), train.y, ids=train.ids)
    with pytest.raises(ValueError, match="expected the data that LogisticRegression was fitted on"):
        truth_of(model, other, queries, singles(train, ["t1", "t2"]))


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_measurement_that_is_not_finite_refuses_the_removal():
    model, train, queries, _ = game()
    model.worth[:, 2] = np.inf
    model.with_parameters(None)
    with pytest.raises(ValueError, match="any of the removals: the measurement came out NaN or infinite"):
        truth_of(model, train, queries, singles(train, ["p1"]))


def test_groups_of_ones_own_are_named_ids():
    model, train, queries, _ = game()
    ids = train.ids[:3].tolist()
    truth, same = (truth_of(model, train, queries, r) for r in ({"g": ids}, named_removals({"g": ids})))
    assert truth.removals == same.removals
    np.testing.assert_array_equal(truth.actual, same.actual)


def test_bad_requests_are_refused():
    model, train, queries, scores = game()
    for removals in (train.ids[:3].tolist(), [["p1"]], np.arange(len(train)) < 3):
        with pytest.raises(TypeError, match=r"expected removals of `subsets` or `singles`, or {name: ids}, got"):
            truth_of(model, train, queries, removals)
    for removals in ([], [*singles(train, ["p1"]), *singles(train, ["p1"])]):
        with pytest.raises(ValueError, match="expected removals of different names"):
            truth_of(model, train, queries, removals)
    for seeds in (0, [], [3, 3]):
        with pytest.raises(ValueError, match="expected at least one seed, and each seed once"):
            truth_of(model, train, queries, singles(train), seeds=seeds)
    with pytest.raises(ValueError, match="expected at least one example in removal 'g'"):
        named_removals({"g": []})
    with pytest.raises(ValueError, match="expected at least one removal"):
        default_removals(scores, train, 0, 0)

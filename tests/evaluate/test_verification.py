"""What a check says of effects that were not retrained: the coverage of its intervals, and calibrated sizes."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

import upweight as uw
from support.additive_game import game
from support.logistic_fit import logistic_fit
from upweight.evaluate.removals import named_removals, singles
from upweight.evaluate.retrain_truth import retrain_truth
from upweight.evaluate.verify import check_against_truth


@cache
def ridge():
    """(model, train, queries, plain first-order scores): cheap, exact, and wrong by the leverage."""
    x, y = load_diabetes(return_X_y=True)
    x, y = StandardScaler().fit_transform(x), y / 100.0
    train = uw.Examples(x[:100], y[:100])
    queries = uw.Examples(x[100:112], y[100:112], ids=[f"q{i}" for i in range(12)])
    model = uw.explainable(Ridge(alpha=2.0).fit(train.x, train.y), train)
    return model, train, queries, uw.Influence(correction=None).fit(model, train).attribute(queries)


@cache
def logistic():
    model, train, queries, _, _ = logistic_fit()
    return model, train, queries, uw.Influence(correction=None).fit(model, train).attribute(queries)


def groups(train, size, count, seed):
    rng = np.random.default_rng(seed)
    return named_removals({f"{seed}-{i}": train.ids[rng.choice(len(train), size, replace=False)] for i in range(count)})


@cache
def of_groups(draw, seed):
    model, train, queries, _ = draw()
    return retrain_truth(model, train, queries, groups(train, 9, 250, seed), retraining=uw.Retraining(processes=1))


@pytest.mark.sweep(2)
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("draw", [ridge, logistic])
def test_intervals_cover_fresh_removals_at_their_level(draw, level):
    model, train, queries, scores = draw()
    verified, fresh = (of_groups(draw, seed) for seed in (1, 2))
    check = check_against_truth(scores, verified, model, train, queries)
    coverage = check.coverage(fresh, level)
    assert coverage.rate == pytest.approx(level, abs=0.05) and coverage.promised == level
    low, high = check.interval(fresh.removals[7].ids, level)
    np.testing.assert_allclose([coverage.low[:, 7], coverage.high[:, 7]], [low, high])
    np.testing.assert_array_equal(coverage.inside[:, 7], (low <= fresh.actual[:, 7]) & (fresh.actual[:, 7] <= high))


def test_intervals_from_one_half_of_a_check_cover_the_other_half():
    model, train, queries, scores = ridge()
    removals = [*groups(train, 9, 60, 3), *singles(train, range(60))]
    check = check_against_truth(
        scores,
        retrain_truth(model, train, queries, removals, retraining=uw.Retraining(processes=1)),
        model,
        train,
        queries,
    )
    coverage = check.coverage(level=0.9)
    assert np.isfinite(coverage.low).all() and coverage.rate == pytest.approx(0.9, abs=0.08)
    # A removal's own residual has no part in its interval: one that is far off moves the others' only.
    actual = check.actual.copy()
    actual[:, 5] += 1e3
    moved = replace(check, actual=actual).coverage(level=0.9)
    np.testing.assert_array_equal(moved.low[:, 5], coverage.low[:, 5])
    assert not moved.inside[:, 5].any()


def test_few_removals_promise_less():
    model, train, queries, scores = ridge()
    check = uw.verify(model, train, queries, scores, 8, retraining=uw.Retraining(processes=1))
    assert check.coverage(level=0.9).promised == pytest.approx(2 / 3)
    lone = uw.verify(model, train, queries, scores, {"a": [1]}, retraining=uw.Retraining(processes=1)).coverage()
    assert np.isnan(lone.low).all() and np.isnan(lone.rate)
    with pytest.raises(ValueError, match="level between 0 and 1"):
        check.coverage(level=1.5)


def wrong_by(factor):
    model, train, queries, scores = game(queries=6)
    wrong = replace(scores, values=scores.values / factor)
    return uw.verify(model, train, queries, wrong, 24, retraining=uw.Retraining(processes=1)), scores


def unsure(check, seed):
    """The same check of effects that scatter around what was predicted."""
    return replace(check, actual=check.actual + 0.5 * np.random.default_rng(seed).standard_normal(check.actual.shape))


def test_a_common_scale_is_corrected_with_a_warning():
    check, truth = wrong_by(3.0)
    calibrated = check.calibrated()
    np.testing.assert_allclose(calibrated.values, truth.values)
    assert (
        calibrated.recipe["calibrated"]["factor"] == pytest.approx(3)
        and calibrated.recipe["calibrated"]["kind"] == "one"
    )
    assert (
        "multiplied by 3" in calibrated.diagnostics["warnings"][-1]
        and "another seed" in calibrated.diagnostics["warnings"][-1]
    )
    assert "no evidence" in calibrated.diagnostics["warnings"][-1] and check.scores.recipe == {}


def test_sizes_within_the_band_are_left_alone():
    check = unsure(wrong_by(1.0)[0], seed=0)
    low, high = check.band("one")
    assert low < 1 < high and check.calibrated() is check.scores


def test_the_band_of_the_slope_holds_the_slope_of_many_removals():
    check = wrong_by(1.0)[0]
    bands = [unsure(check, seed).band("one", level=0.9) for seed in range(60)]
    assert np.mean([low <= 1.0 <= high for low, high in bands]) == pytest.approx(0.9, abs=0.1)


def test_scores_that_no_factor_can_correct_are_refused():
    check, scores = wrong_by(-1.0)
    with pytest.raises(ValueError, match="expected a slope above 0"):
        check.calibrated()
    with pytest.raises(ValueError, match="RANK scores promise no size"):
        replace(check, scores=replace(scores, unit=uw.Unit.RANK)).calibrated()
    model, train, queries, scores = game()
    few = uw.verify(model, train, queries, scores, {"a": ["p1"], "b": ["p2"]}, retraining=uw.Retraining(processes=1))
    with pytest.raises(ValueError, match="expected at least 4 removals for a band of the slope, got 2"):
        few.calibrated()


def test_seeds_are_averaged_and_give_a_ceiling():
    model, train, queries, scores = game(noise=3.0)
    check = uw.verify(model, train, queries, scores, 12, retraining=uw.Retraining(processes=1))
    many = uw.verify(model, train, queries, scores, 12, retraining=uw.Retraining(processes=1, seeds=8), seed=5)
    assert np.abs(many.actual - many.predicted).mean() < 0.6 * np.abs(check.actual - check.predicted).mean()
    assert many.diagnostics["seeds"] == list(range(8)) and many.diagnostics["trainings"] == 13 * 8
    assert 0.3 < many.ceiling.value < 1 and np.isnan(check.ceiling.value)
    assert check.diagnostics["seed_noise"] > 0 and "retrain with several" in check.ceiling.note
    with pytest.raises(ValueError, match="at least one seed"):
        uw.verify(model, train, queries, scores, 4, retraining=uw.Retraining(processes=1, seeds=0))


def test_a_removal_of_a_whole_class_is_left_out_if_drawn_and_an_error_if_named():
    model, train, queries, scores = game(refuses=frozenset({int(np.abs(game()[0].worth[0]).argmax())}))
    check = uw.verify(model, train, queries, scores, 8, retraining=uw.Retraining(processes=1))
    assert (
        len(check.removals) < 8 and "was left out: nobody of class 'king' is left" in check.diagnostics["warnings"][0]
    )
    with pytest.raises(ValueError, match="king"):
        uw.verify(model, train, queries, scores, {"all": train.ids.tolist()}, retraining=uw.Retraining(processes=1))


def test_a_check_resumes_from_its_folder(tmp_path):
    model, train, queries, scores = game()
    first = uw.verify(model, train, queries, scores, 8, retraining=uw.Retraining(processes=1, folder=tmp_path))
    model.log.clear()
    again = uw.verify(model, train, queries, scores, 8, retraining=uw.Retraining(processes=1, folder=tmp_path))
    assert model.log == [] and (again.actual == first.actual).all()


def test_a_check_is_json():
    model, train, queries, scores = game()
    check = uw.verify(
        model, train, queries, scores, {"a": ["p1", "p2"], "b": ["p3", "p4"]}, retraining=uw.Retraining(processes=1)
    )
    document = json.loads(json.dumps(check.as_dict(), allow_nan=False))
    assert document["groups"]["slope"] == pytest.approx(1) and document["single"]["slope"] is None
    assert document["ceiling"]["value"] == 1 and document["coverage"]["level"] == 0.9
    assert (
        np.shape(document["predicted"]) == np.shape(document["actual"]) == (4, 2)
        and document["queries"] == queries.ids.tolist()
    )
    assert document["removals"][0] == {"name": "a", "kind": "group", "size": 2}


def test_scores_of_zero_have_no_interval_and_a_query_of_zeros_takes_the_width_of_others():
    model, train, queries, scores = game()
    zero = uw.verify(
        model, train, queries, replace(scores, values=0 * scores.values), 8, retraining=uw.Retraining(processes=1)
    )
    with pytest.raises(ValueError, match="expected scores that are not all zero"):
        zero.interval(["p1"])
    assert zero.as_dict()["coverage"]["rate"] is None
    values = scores.values.copy()
    values[2] = 0.0
    low, high = uw.verify(
        model, train, queries, replace(scores, values=values), 16, retraining=uw.Retraining(processes=1)
    ).interval(["p1"])
    assert low[2] < 0 < high[2]

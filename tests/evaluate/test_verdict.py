"""Every check has a verdict in words, and scores that fail one lose their unit."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import upweight as uw
from upweight.evaluate.agreement import agreement
from upweight.evaluate.verdict import judge
from upweight.report.terminal import summary

ALONE = uw.Retraining(processes=1)
EFFECT, RANK = uw.Unit.EFFECT, uw.Unit.RANK


def drawn(seed, queries=4, removals=8, noise=0.2):
    """Predicted effects, and actual ones that differ by this much noise."""
    rng = np.random.default_rng(seed)
    predicted = rng.normal(size=(queries, removals))
    return predicted, predicted + noise * rng.normal(size=predicted.shape)


def logistic(removals, count=150, seed=0):
    """A logistic regression whose scores of single examples equal retraining, its scores, and their check."""
    x, y = load_breast_cancer(return_X_y=True)
    chosen = np.random.default_rng(seed).permutation(len(x))[: count + 4]
    x, y = StandardScaler().fit_transform(x[chosen]), y[chosen]
    train, queries = uw.Examples(x[:count], y[:count]), uw.Examples(x[count:], y[count:])
    model = uw.explainable(LogisticRegression(C=0.3, tol=1e-9, max_iter=5000).fit(train.x, train.y), train)
    scores = uw.Influence().fit(model, train).attribute(queries)
    return model, train, queries, scores, uw.verify(model, train, queries, scores, removals, retraining=ALONE)


def forest(removals=16):
    """A regression forest, whose scores do not predict the effect of removing one example."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(160, 5))
    y = x[:, 0] + 2.0 * rng.normal(size=160)
    train, queries = uw.Examples(x[:150], y[:150]), uw.Examples(x[150:154], y[150:154])
    model = uw.explainable(RandomForestRegressor(15, random_state=3).fit(train.x, train.y), train)
    return uw.explain(model, train, queries, removals=removals, retraining=ALONE)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("removals", [4, 16])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_exact_scores_agree_with_as_few_as_four_removals(removals, seed):
    *_, scores, check = logistic(removals, seed=seed)
    assert check.verdict is uw.Verdict.AGREES and check.as_dict()["verdict"] == "agrees" and "agrees" in repr(check)
    assert check.judged.unit == EFFECT and check.judged.diagnostics["verdict"] == "agrees"
    assert check.verdict_warnings == [] and check.judged.diagnostics["warnings"] == scores.diagnostics["warnings"]


@pytest.mark.parametrize(("queries", "removals"), [(1, 8), (4, 2), (4, 8), (8, 1)])
def test_noise_predicts_nothing_and_small_errors_agree(queries, removals):
    rng = np.random.default_rng(0)
    noise = [judge(*rng.normal(size=(2, queries, removals)), EFFECT, seed=i).verdict for i in range(40)]
    assert np.mean([verdict is uw.Verdict.FAILS for verdict in noise]) >= 0.9
    close = [judge(*drawn(i, queries, removals), EFFECT).verdict for i in range(40)]
    assert np.mean([verdict is uw.Verdict.AGREES for verdict in close]) >= 0.9


@pytest.mark.parametrize("factor", [5.0, 0.1])
def test_the_right_order_with_sizes_off_by_a_factor_is_order_only(factor):
    predicted, actual = drawn(0)
    assert judge(predicted, factor * actual, EFFECT).verdict is uw.Verdict.ORDER_ONLY
    assert judge(predicted, -factor * actual, EFFECT).verdict is uw.Verdict.FAILS


def test_one_pair_does_not_make_a_verdict():
    rng = np.random.default_rng(0)
    actual = np.zeros((4, 2))
    actual[1, 0] = 1.0
    predicted = actual + 1e-3 * rng.normal(size=actual.shape)
    assert agreement(predicted, actual).pearson > 0.99
    assert judge(predicted, actual, EFFECT).verdict is uw.Verdict.FAILS
    assert judge(actual, actual, EFFECT).verdict is uw.Verdict.AGREES  # all effects are right, those of 0 as well


@pytest.mark.parametrize(("factor", "noise"), [(1.0, 2.0), (2.3, 1.0), (0.45, 0.3), (1.0, 0.8)])
def test_few_removals_do_not_confirm_more_than_many(factor, noise):
    shares = []
    for removals in (4, 8, 128):
        effects = [np.random.default_rng(seed).normal(size=(2, 2, removals)) for seed in range(30)]
        verdicts = [judge(p, factor * p + noise * other, EFFECT).verdict for p, other in effects]
        shares.append(np.mean([verdict is uw.Verdict.AGREES for verdict in verdicts]))
    assert max(shares[:2]) <= shares[2] + 0.1, shares
    assert noise > 0.8 or factor < 0.5 or shares[2] == 1.0  # many removals do confirm what is right


def test_sizes_that_few_removals_cannot_confirm_are_said_to_be_open():
    predicted = np.random.default_rng(2).normal(size=(1, 8))
    actual = predicted + np.random.default_rng(3).normal(size=(1, 8))
    judgement = judge(predicted, actual, EFFECT)
    assert judgement.verdict is uw.Verdict.ORDER_ONLY
    (warning,) = judgement.warnings(EFFECT, "scores")
    assert "too few removals to confirm the sizes" in warning and " to " in warning


def test_ranks_have_no_slope_on_any_surface(tmp_path):
    _, train, queries, scores, check = logistic(16)
    ranks = dataclasses.replace(check, scores=dataclasses.replace(scores, unit=RANK))
    assert np.isnan(ranks.slope) and np.isnan(ranks.judge().slope).all() and "slope" not in repr(ranks)
    facts = ranks.as_dict()
    assert [facts[kind]["slope"] for kind in ("all", "single", "groups")] == [None, None, None]
    explained = uw.Explanation(ranks.judged, train, queries, ranks, 1.0)
    assert explained.as_dict()["check"]["single"]["slope"] is None
    assert explained.as_dict()["check"]["single"]["pearson"] > 0.99
    page = uw.write_report(tmp_path / "a.html", ranks.scores, train, queries, ranks).read_text(encoding="utf-8")
    assert "slope of single examples" not in page and "Checked by 8 removals of single examples: order only" in page
    for shown, has_slope in ((explained, False), (uw.Explanation(scores, train, queries, check, 1.0), True)):
        console = Console(record=True, width=100, file=io.StringIO())
        console.print(summary(shown, shown.queries.ids[:1].tolist(), console))
        text = console.export_text()
        assert "without one example" in text and ("slope" in text) == has_slope


def test_rank_scores_are_order_only_at_best_and_keep_their_unit_without_a_warning():
    assert judge(*drawn(0), RANK).verdict is uw.Verdict.ORDER_ONLY
    *_, scores, check = logistic(16)
    ranks = dataclasses.replace(check, scores=dataclasses.replace(scores, unit=RANK))
    assert ranks.verdict is uw.Verdict.ORDER_ONLY and ranks.verdict_warnings == []


def test_what_cannot_be_compared_has_no_verdict():
    nothing = np.zeros((2, 4))
    assert judge(nothing, nothing, EFFECT).verdict is None and "to compare" in str(judge(nothing, nothing, EFFECT))
    assert judge(np.ones((1, 1)), np.ones((1, 1)), EFFECT).verdict is None
    rounding = 1e-17 * np.random.default_rng(0).normal(size=(2, 4))
    assert judge(rounding, nothing, EFFECT, scale=1.0).verdict is None


def test_predicting_no_effect_where_there_are_effects_fails():
    _, actual = drawn(0)
    assert judge(np.zeros_like(actual), actual, EFFECT).verdict is uw.Verdict.FAILS


def test_two_pairs_are_compared_by_their_sizes():
    actual = np.array([[1.0, 1.1]])
    assert judge(1.1 * actual, actual, EFFECT).verdict is uw.Verdict.AGREES
    assert judge(-actual, actual, EFFECT).verdict is uw.Verdict.FAILS
    assert judge(0.3 * actual, actual, EFFECT).verdict is None


def test_single_examples_decide_if_some_were_removed():
    *_, check = logistic(16)
    is_single = np.array([removal.kind == "one" for removal in check.removals])
    wrong = dataclasses.replace(check, predicted=np.where(is_single, -check.predicted, check.predicted))
    assert wrong.verdict is uw.Verdict.FAILS and wrong.judge("group").verdict is uw.Verdict.AGREES


def test_sums_that_fail_are_named_beside_single_examples_that_agree(tmp_path):
    *_, train, queries, scores, check = logistic(16)
    assert check.verdict is uw.Verdict.AGREES and check.verdict_warnings == []  # a clean control
    is_group = np.array([removal.kind == "group" for removal in check.removals])
    wrong = dataclasses.replace(check, predicted=np.where(is_group, -check.predicted, check.predicted))
    assert wrong.verdict is uw.Verdict.AGREES and wrong.judged.unit == EFFECT
    assert wrong.judged_removals == "8 removals of single examples"
    (warning,) = wrong.verdict_warnings
    assert "Sums of these scores do not predict retraining without groups" in warning and "8 removals" in warning
    page = uw.write_report(tmp_path / "a.html", scores, train, queries, wrong).read_text(encoding="utf-8")
    assert "do not predict retraining without groups" in page and warning in wrong.as_dict()["warnings"]


def test_every_surface_says_why_there_is_no_verdict(tmp_path):
    _, train, queries, scores, check = logistic(4)
    nothing = dataclasses.replace(check, predicted=0.0 * check.predicted, actual=0.0 * check.actual)
    text = "too few retrainings, or no effects, to compare"
    assert nothing.as_dict()["verdict"] is None and nothing.judged.unit == EFFECT
    assert text in repr(nothing) and nothing.judged.diagnostics["verdict"] == text
    page = uw.write_report(tmp_path / "a.html", scores, train, queries, nothing).read_text(encoding="utf-8")
    assert f"Checked by 2 removals of single examples: {text}" in page and "not checked" not in page


def test_effect_does_not_survive_a_failed_check():
    explained = forest()
    assert explained.check.verdict is uw.Verdict.FAILS and explained.check.scores.unit == EFFECT
    assert explained.scores.unit == RANK and explained.scores.diagnostics["verdict"] == str(uw.Verdict.FAILS)
    (warning,) = [w for w in explained.warnings if "do not predict retraining" in w]
    assert "Pearson" in warning and "8 removals of single examples" in warning
    assert explained.as_dict()["check"]["verdict"] == str(uw.Verdict.FAILS) and explained.as_dict()["unit"] == "RANK"
    assert explained.check.as_dict()["unit"] == "RANK"


def test_the_report_says_verified_only_of_scores_that_agree(tmp_path):
    explained = forest()
    model, train, queries, scores, check = logistic(16)
    raw = explained.check.scores
    failed = uw.write_report(tmp_path / "a.html", raw, explained.train, explained.queries, explained.check)
    agreed = uw.write_report(tmp_path / "b.html", scores, train, queries, check)
    half = dataclasses.replace(check, predicted=check.predicted / 8)
    order = uw.write_report(tmp_path / "c.html", scores, train, queries, half)
    other = uw.write_report(
        tmp_path / "d.html", uw.Chance().fit(model, train).attribute(queries), train, queries, check
    )
    failed, agreed, order, other = (page.read_text(encoding="utf-8") for page in (failed, agreed, order, other))
    assert "Verified by 8 removals of single examples: agrees" in agreed and "the sizes are right" in agreed
    assert f"Checked by 8 removals of single examples: {uw.Verdict.FAILS}" in failed
    assert "Checked by 8 removals of single examples: order only" in order and "<b>Not verified</b>" in other
    for page in (failed, order, other):
        assert "Verified by" not in page and "the sizes are right" not in page and "EFFECT: the size" not in page


def test_the_slope_of_almost_constant_predictions_is_withheld():
    rng = np.random.default_rng(0)
    predicted, actual = 0.3 + 0.001 * rng.normal(size=200), 0.3 + rng.normal(size=200)
    assert np.isnan(agreement(predicted, actual).slope)
    assert agreement(0.01 * actual, actual).slope == pytest.approx(100.0)  # small, but on one line
    weak = 0.5 * rng.normal(size=200)
    assert np.isfinite(agreement(weak, weak + rng.normal(size=200)).slope)


def test_a_withheld_slope_has_no_band_and_corrects_nothing():
    *_, check = logistic(16)
    flat = dataclasses.replace(check, predicted=np.full_like(check.predicted, 1e-3))
    assert np.isnan(flat.slope) and np.isnan(flat.band()).all()
    assert flat.as_dict()["all"]["slope"] is None
    with pytest.raises(ValueError, match="no factor corrects"):
        flat.calibrated()


def test_noise_of_the_training_is_named_where_it_explains_a_failure():
    *_, check = logistic(16)
    rng = np.random.default_rng(0)
    base = check.truth.base + rng.normal(size=(4, 4))
    after = check.truth.after + rng.normal(size=(4, 4, 16))
    noisy = dataclasses.replace(check.truth, base=base, after=after, seeds=(0, 1, 2, 3))
    failed = dataclasses.replace(check, actual=noisy.actual, truth=noisy)
    assert failed.verdict is uw.Verdict.FAILS and "verify with more seeds" in failed.verdict_warnings[0]


def test_an_interval_for_a_far_larger_group_is_refused_and_for_a_larger_one_marked(recwarn):
    _, train, *_, check = logistic(16)  # groups of up to 15
    check.interval(train.ids[:15].tolist())
    check.interval(train.ids[:18].tolist())
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"larger than the largest retrained group \(15\)"):
        check.interval(train.ids[:25].tolist())
    with pytest.raises(ValueError, match="got 45 examples where the largest retrained group has 15"):
        check.interval(train.ids[:45].tolist())


def test_an_interval_for_a_group_that_was_chosen_by_its_scores_is_marked_unless_such_groups_were_retrained(recwarn):
    model, train, queries, scores, check = logistic(16)  # random groups
    strongest = {str(q): scores.train_ids[np.argsort(-scores.values[q])[:8]].tolist() for q in range(3)}
    rng = np.random.default_rng(0)
    for _ in range(20):
        check.interval(rng.choice(train.ids, 8, replace=False).tolist())
    assert not recwarn.list
    for ids in strongest.values():
        with pytest.warns(UserWarning, match="more extreme than those of random groups"):
            check.interval(ids)
    chosen = uw.verify(model, train, queries, scores, strongest, retraining=uw.Retraining(processes=1))
    chosen.interval(strongest["0"][:7] + strongest["0"][8:])


def test_every_method_of_a_comparison_has_a_verdict():
    model, train, queries, *_ = logistic(4)
    truth = uw.retrain_truth(model, train, queries, uw.subsets(train, 12, 0.9), retraining=ALONE)
    compared = uw.compare({"influence": uw.Influence(), "chance": uw.Chance()}, model, train, queries, truth)
    assert compared["influence"].verdict is uw.Verdict.AGREES and compared["chance"].verdict is uw.Verdict.FAILS
    assert compared.as_dict()["methods"][0]["verdict"] == "agrees"

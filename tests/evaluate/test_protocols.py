"""LDS, LOO and the noise ceiling against what is known in closed form."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

import upweight as uw
from support.additive_game import game
from upweight.evaluate.lds import lds
from upweight.evaluate.loo import loo
from upweight.evaluate.noise_ceiling import noise_ceiling, spearman_brown
from upweight.evaluate.removals import singles, subsets
from upweight.evaluate.retrain_truth import retrain_truth


def made(count=40, seeds=1, queries=4, **more):
    model, train, query_examples, scores = game(queries=queries, **more)
    return (
        retrain_truth(
            model, train, query_examples, subsets(train, count), retraining=uw.Retraining(processes=1, seeds=seeds)
        ),
        scores,
        train,
    )


def noisy(scores, size, seed=1):
    noise = np.random.default_rng(seed).standard_normal(scores.values.shape)
    return replace(scores, values=scores.values + size * noise)


def test_true_effects_of_an_additive_game_score_one():
    truth, scores, _ = made()
    result = lds(scores, truth)
    assert (result.mean, result.low, result.high, result.relative) == pytest.approx((1, 1, 1, 1))
    assert (result.subsets, result.share) == (40, 0.5) and result.ceiling.value == 1
    assert lds(replace(scores, values=-scores.values), truth).mean == pytest.approx(-1)


def test_lds_is_the_mean_rank_correlation_of_kept_sums():
    truth, scores, train = made()
    guess = noisy(scores, 1.0)
    is_kept = np.array([[i not in removal.ids for i in train.ids.tolist()] for removal in truth.removals])
    expected = [spearmanr(row @ is_kept.T, m).statistic for row, m in zip(guess.values, truth.after[0], strict=True)]
    result = lds(guess, truth)
    np.testing.assert_allclose(result.per_query, expected, atol=1e-12)
    assert result.mean == pytest.approx(np.mean(expected)) and result.low < result.mean < result.high


def test_the_interval_over_subsets_contains_the_lds_of_many_subsets():
    truth, scores, _ = made(count=1500)
    guess = noisy(scores, 1.5)
    whole = lds(guess, truth, draws=2).mean
    parts = [lds(guess, truth.take(range(i, i + 50)), 0.8) for i in range(0, 1500, 50)]
    assert 0.55 < np.mean([p.low <= whole <= p.high for p in parts]) <= 1


def test_one_query_is_enough_and_few_subsets_are_not():
    truth, scores, _ = made(queries=1)
    assert lds(scores, truth).mean == pytest.approx(1)
    with pytest.raises(ValueError, match="expected a truth of at least 5 removals to put in order, got 4"):
        lds(scores, truth.take([0, 1, 2, 3]))
    with pytest.raises(ValueError, match="level between 0 and 1"):
        lds(scores, truth, level=95)


def test_a_constant_prediction_has_no_correlation():
    truth, scores, _ = made()
    flat = scores.values.copy()
    flat[1] = 0.0
    result = lds(replace(scores, values=flat), truth)
    assert np.isnan(result.per_query).tolist() == [False, True, False, False] and result.mean == pytest.approx(1)
    assert result.as_dict()["per_query"][1] is None
    none = lds(replace(scores, values=0 * flat), truth).as_dict()
    assert none["mean"] is None and none["interval"] == [None, None] and none["relative"] is None
    assert "–" in repr(lds(replace(scores, values=0 * flat), truth))


def test_spearman_brown_in_closed_form():
    assert spearman_brown(0.5, 2) == pytest.approx(2 / 3)
    assert spearman_brown(0.6, 1) == pytest.approx(0.6) and spearman_brown(1.0, 5) == 1
    # The mean of k parallel measurements, signal variance s, noise variance 1: reliability s / (s + 1/k).
    for s, k in ((0.3, 4), (2.0, 3)):
        assert spearman_brown(s / (s + 1), k) == pytest.approx(s / (s + 1 / k))


def test_the_ceiling_is_what_the_true_effects_reach():
    truth, scores, _ = made(count=400, seeds=6, noise=4.0)
    ceiling = noise_ceiling(truth)
    reached = lds(scores, truth)
    assert ceiling.value == pytest.approx(reached.mean, abs=0.03) and ceiling.value < 0.97
    assert reached.relative == pytest.approx(1.0, abs=0.04)
    single = truth.each[0]  # and the reliability is the correlation with six fresh seeds
    assert ceiling.reliability > np.mean([pearsonr(a, b)[0] for a, b in zip(single, truth.each[1], strict=True)])


def test_the_ceiling_of_one_noisy_seed_is_not_known():
    ceiling = noise_ceiling(made(noise=1.0)[0])
    assert np.isnan(ceiling.value) and "one seed says nothing" in ceiling.note and ceiling.as_dict()["value"] is None
    same = noise_ceiling(made(seeds=3)[0])
    assert same.value == 1 and "does not depend on its seed" in same.note
    assert np.isnan(lds(*made(noise=1.0)[1::-1]).relative)


def test_loo_is_the_agreement_with_single_removals():
    model, train, queries, scores = game()
    truth = retrain_truth(
        model, train, queries, [*singles(train), *subsets(train, 3)], retraining=uw.Retraining(processes=1)
    )
    perfect = loo(scores, truth)
    assert perfect.pooled.count == 4 * 30
    for agreed in (perfect.pooled, *perfect.per_query):
        assert (agreed.pearson, agreed.spearman, agreed.slope, agreed.r2) == pytest.approx((1, 1, 1, 1))
    guess = loo(noisy(scores, 0.5), truth)
    row = noisy(scores, 0.5).values[2]
    assert guess.per_query[2].pearson == pytest.approx(pearsonr(row, model.worth[2]).statistic)
    half = loo(replace(scores, values=scores.values / 2), truth)
    assert half.pooled.slope == pytest.approx(2) and half.pooled.r2 < 1 == pytest.approx(half.pooled.pearson)


def test_ranks_have_no_slope():
    model, train, queries, scores = game()
    truth = retrain_truth(model, train, queries, singles(train), retraining=uw.Retraining(processes=1))
    result = loo(replace(scores, unit=uw.Unit.RANK), truth).as_dict()
    assert result["pooled"]["slope"] is None and result["pooled"]["r2"] is None
    assert result["pooled"]["spearman"] == pytest.approx(1)
    with pytest.raises(ValueError, match="at least three removals of one example, got 2"):
        loo(scores, truth.take([0, 1]))


@pytest.mark.parametrize("protocol", [lds, loo])
def test_results_have_text_and_html_forms(protocol):
    model, train, queries, scores = game()
    truth = retrain_truth(model, train, queries, singles(train), retraining=uw.Retraining(processes=1))
    result = protocol(scores, truth)
    assert "4 queries" in repr(result) and "<table" in result._repr_html_() and "q3" in result._repr_html_()
    assert "Truth(30 removals" in truth._repr_html_() and "ceiling" in noise_ceiling(truth)._repr_html_()

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import r2_score

from upweight.evaluate.agreement import agreement, correlation, finite_mean, rank_correlations, resampled_correlations

rng = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(50,), (5, 10)])
def test_agreement_equals_scipy(shape):
    predicted = rng.standard_normal(shape)
    actual = 2.0 * predicted + rng.standard_normal(shape)
    result, p, a = agreement(predicted, actual), predicted.ravel(), actual.ravel()
    assert result.slope == pytest.approx(np.linalg.lstsq(p[:, None], a, rcond=None)[0][0])
    assert result.pearson == pytest.approx(pearsonr(p, a).statistic)
    assert result.spearman == pytest.approx(spearmanr(p, a).statistic)
    assert result.count == 50


def test_ties_share_their_rank():
    p, a = np.array([1.0, 1, 2, 3, 3, 3]), np.array([0.0, 5, 5, 1, 2, 9])
    assert agreement(p, a).spearman == pytest.approx(spearmanr(p, a).statistic)


@settings(max_examples=20)
@given(hnp.arrays(np.float64, 8, elements=st.floats(-1e3, 1e3).map(lambda v: round(v, 3)), unique=True))
def test_agreement_with_itself_is_perfect(values):
    result = agreement(values, values)
    assert (
        result.slope == pytest.approx(1) and result.pearson == pytest.approx(1) and result.spearman == pytest.approx(1)
    )
    turned = agreement(values, -3 * values)
    assert turned.slope == pytest.approx(-3) and turned.pearson == pytest.approx(-1)


def test_a_constant_has_no_correlation():
    varied, constant = rng.standard_normal(10), np.full(10, 0.1)
    for p, a in ((varied, constant), (constant, varied)):
        result = agreement(p, a)
        assert np.isnan(result.pearson) and np.isnan(result.spearman)
    assert np.isnan(agreement(np.zeros(3), varied[:3]).slope)
    assert np.isnan(correlation(np.ones(3), varied[:3]))
    assert agreement(varied, constant).slope == pytest.approx(0.1 * varied.sum() / (varied**2).sum())


def test_rank_correlations_are_scipys_row_by_row():
    predicted, actual = rng.standard_normal((2, 6, 30)).round(1)  # with ties
    expected = [spearmanr(p, a).statistic for p, a in zip(predicted, actual, strict=True)]
    np.testing.assert_allclose(rank_correlations(predicted, actual), expected, atol=1e-12)
    np.testing.assert_allclose(rank_correlations(predicted, np.exp(predicted)), 1.0)
    actual[2] = 0.1
    assert np.isnan(rank_correlations(predicted, actual)).tolist() == [False, False, True, False, False, False]
    with pytest.raises(ValueError, match="two arrays of one shape"):
        rank_correlations(predicted, actual[:-1])


def test_a_bootstrap_ranks_each_sample_anew():
    predicted, actual = rng.standard_normal((2, 4, 12)).round(1)
    actual[3] = 0.1
    drawn = rng.integers(12, size=(25, 12))
    drawn[7] = 3  # one subset over and over: nothing to rank
    counts = np.stack([np.bincount(row, minlength=12) for row in drawn]).astype(float)
    expected = [rank_correlations(predicted[:, d], actual[:, d]) for d in drawn]
    np.testing.assert_allclose(resampled_correlations(predicted, actual, counts), expected, atol=1e-12)


def test_determination_is_of_the_predictions_as_they_stand():
    predicted = rng.standard_normal(40)
    actual = predicted + 0.1 * rng.standard_normal(40)
    assert agreement(predicted, actual).r2 == pytest.approx(r2_score(actual, predicted))
    assert agreement(5 * predicted, actual).r2 == pytest.approx(r2_score(actual, 5 * predicted))
    assert agreement(5 * predicted, actual).r2 < 0
    assert np.isnan(agreement(predicted, np.full(40, 0.1)).r2)


def test_nan_is_none_in_json_and_left_out_of_means():
    assert agreement(np.zeros(3), np.ones(3)).as_dict() == {
        "slope": None, "pearson": None, "spearman": None, "count": 3, "r2": None
    }  # fmt: skip
    values = np.array([[1.0, np.nan, 3.0], [np.nan] * 3])
    np.testing.assert_array_equal(finite_mean(values, axis=1), [2.0, np.nan])
    assert finite_mean(values) == 2.0

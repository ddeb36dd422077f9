"""Where the damping comes from, and how much depends on it."""

import numpy as np
import pytest
from scipy.stats import spearmanr

pytest.importorskip("torch")
from curved_nets import examples, model

import upweight as uw
from upweight.curvature import gauss_newton
from upweight.curvature.damping import NEIGHBOUR_RATIOS, mean_rank_correlation, neighbouring_solutions


def timed(time):
    here = model("mlp", l2=0.01)
    other = uw.TorchModel(here.network.net, here.network.loss, objective=uw.Objective("mean", l2=0.01))
    other.training_time = lambda train: time
    return other


@pytest.mark.parametrize("recipe", [uw.GaussNewton(), uw.Hessian(), uw.KFAC(), uw.EKFAC()], ids=str)
def test_a_known_training_time_gives_the_damping(recipe):
    train, queries = examples(25), examples(3, seed=9)
    news = uw.Influence(curvature=recipe).fit(timed(0.5), train).attribute(queries).diagnostics
    assert news["damping"] == pytest.approx(4.0)
    assert "τ = Σ ηₜ/(1 − β) = 0.5" in news["damping_from"]


def test_an_empirical_fisher_takes_its_damping_from_the_spectrum_all_the_same():
    found = timed(0.5).curvature(examples(25), uw.EmpiricalFisher(), None).diagnostics
    assert "mean eigenvalue" in found["damping_from"]


def test_an_empirical_fisher_has_a_share_of_the_mean_eigenvalue_of_its_own_matrix_for_damping():
    here, weights = model("mlp"), np.random.default_rng(3).uniform(0.5, 2.0, 25)
    train = uw.Examples(examples(25).x, examples(25).y, weights=weights)
    rows = here.loss_rows(train).dense() / np.sqrt(weights)[:, None]  # they carry their weights
    found = here.curvature(train, uw.EmpiricalFisher(), None).diagnostics["damping"]
    assert found == pytest.approx(0.3 * (rows**2).sum() / 25 / weights.sum())


@pytest.mark.parametrize("time", [0.0, -1.0, np.nan])
def test_a_training_without_time_is_refused(time):
    with pytest.raises(ValueError, match="training time"):
        timed(time).curvature(examples(25), uw.GaussNewton(), None)


def test_one_factor_solves_for_neighbouring_dampings():
    rng = np.random.default_rng(0)
    k = rng.standard_normal((30, 12))
    k, right = k @ k.T, rng.standard_normal((30, 4))
    inverse = np.linalg.inv(k + 0.7 * np.eye(30))
    for name, found in neighbouring_solutions(inverse @ right, lambda x: 0.7 * inverse @ x).items():
        expected = np.linalg.solve(k + NEIGHBOUR_RATIOS[name] * 0.7 * np.eye(30), right)
        assert np.linalg.norm(found - expected) < 2e-3 * np.linalg.norm(expected)


def test_agreement_is_the_mean_rank_correlation():
    a, b = np.random.default_rng(0).standard_normal((2, 5, 20))
    assert mean_rank_correlation(a, b) == pytest.approx(
        np.mean([spearmanr(*pair).statistic for pair in zip(a, b, strict=True)])
    )
    assert mean_rank_correlation(a, 3 * a + 1) == pytest.approx(1.0)


@pytest.mark.parametrize("recipe", [uw.EmpiricalFisher(), uw.GaussNewton()], ids=str)
def test_how_flat_the_choice_is_stands_in_the_diagnostics(recipe, monkeypatch):
    monkeypatch.setattr(gauss_newton, "MAX_DENSE_PARAMETERS", 1)
    train, queries, here = examples(25), examples(5, seed=9), model("mlp")
    scores = uw.Influence(curvature=recipe).fit(here, train).attribute(queries)
    chosen = scores.diagnostics["damping"]
    for name, ratio in NEIGHBOUR_RATIOS.items():
        other = uw.Influence(curvature=recipe, damping=ratio * chosen).fit(here, train).attribute(queries)
        expected = mean_rank_correlation(scores.values, other.values)
        assert scores.diagnostics["damping_rank_correlation"][name] == pytest.approx(expected, abs=0.01)
        assert expected < 0.999

"""Where the damping comes from, and how much the scores depend on it."""

import numpy as np
import pytest
from scipy.stats import spearmanr

pytest.importorskip("torch")
import upweight as uw
from support.curved_nets import examples, untrained, with_limits
from upweight.curvature.damping import NEIGHBOUR_RATIOS, mean_rank_correlation, neighbouring_solutions


def timed(time):
    """An untrained model that reports this training time."""
    network = untrained("mlp").network
    model = uw.TorchModel(network.net, network.loss, objective=uw.Objective("mean", l2=0.01))
    model.training_time = lambda train: time
    return model


@pytest.mark.parametrize("recipe", [uw.GaussNewton(), uw.Hessian(), uw.KFAC(), uw.EKFAC()], ids=str)
def test_a_known_training_time_gives_the_damping(recipe):
    train, queries = examples(25), examples(3, seed=9)
    diagnostics = uw.Influence(curvature=recipe).fit(timed(0.5), train).attribute(queries).diagnostics
    assert diagnostics["damping"] == pytest.approx(4.0)
    assert "τ = Σ ηₜ/(1 − β) = 0.5" in diagnostics["damping_from"]


def test_an_empirical_fisher_takes_its_damping_from_the_spectrum_despite_a_training_time():
    diagnostics = timed(0.5).curvature(examples(25), uw.EmpiricalFisher(), None).diagnostics
    assert "mean eigenvalue" in diagnostics["damping_from"]


def test_the_damping_of_an_empirical_fisher_is_a_share_of_its_mean_eigenvalue():
    model, weights = untrained("mlp"), np.random.default_rng(3).uniform(0.5, 2.0, 25)
    train = uw.Examples(examples(25).x, examples(25).y, weights=weights)
    rows = model.loss_rows(train).dense() / np.sqrt(weights)[:, None]  # they carry their weights
    damping = model.curvature(train, uw.EmpiricalFisher(), None).diagnostics["damping"]
    assert damping == pytest.approx(0.3 * (rows**2).sum() / 25 / weights.sum())


@pytest.mark.parametrize("time", [0.0, -1.0, np.nan])
def test_a_training_without_time_is_refused(time):
    with pytest.raises(ValueError, match="training time"):
        timed(time).curvature(examples(25), uw.GaussNewton(), None)


def test_one_factorisation_solves_for_neighbouring_dampings():
    rng = np.random.default_rng(0)
    k = rng.standard_normal((30, 12))
    k, right = k @ k.T, rng.standard_normal((30, 4))
    inverse = np.linalg.inv(k + 0.7 * np.eye(30))
    for name, solution in neighbouring_solutions(inverse @ right, lambda x: 0.7 * inverse @ x).items():
        expected = np.linalg.solve(k + NEIGHBOUR_RATIOS[name] * 0.7 * np.eye(30), right)
        assert np.linalg.norm(solution - expected) < 2e-3 * np.linalg.norm(expected)


def test_the_mean_rank_correlation_is_spearmans():
    a, b = np.random.default_rng(0).standard_normal((2, 5, 20))
    assert mean_rank_correlation(a, b) == pytest.approx(
        np.mean([spearmanr(*pair).statistic for pair in zip(a, b, strict=True)])
    )
    assert mean_rank_correlation(a, 3 * a + 1) == pytest.approx(1.0)


@pytest.mark.parametrize("recipe", [uw.EmpiricalFisher(), uw.GaussNewton()], ids=str)
def test_diagnostics_hold_the_rank_correlation_with_scores_at_neighbouring_dampings(recipe):
    train, queries, model = examples(25), examples(5, seed=9), with_limits(untrained("mlp"), dense_parameters=1)
    scores = uw.Influence(curvature=recipe).fit(model, train).attribute(queries)
    damping = scores.diagnostics["damping"]
    for name, ratio in NEIGHBOUR_RATIOS.items():
        other = uw.Influence(curvature=recipe, damping=ratio * damping).fit(model, train).attribute(queries)
        expected = mean_rank_correlation(scores.values, other.values)
        assert scores.diagnostics["damping_rank_correlation"][name] == pytest.approx(expected, abs=0.01)
        assert expected < 0.999

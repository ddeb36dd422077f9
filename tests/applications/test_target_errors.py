"""Errors in regression targets are found, in units of the noise, by models that were not trained with them."""

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LinearRegression, PoissonRegressor, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import upweight as uw
from upweight.applications.target_errors import noise_of, target_errors


def planted(kind, seed, share=0.1):
    """(columns, targets with errors, true targets, positions of the errors) of the diabetes table."""
    x, y = load_diabetes(return_X_y=True)
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(y), round(share * len(y)), replace=False)
    noisy = y.copy()
    if kind == "digit":  # a digit too many or too few
        noisy[wrong] *= np.where(rng.random(len(wrong)) < 0.5, 10, 0.1)
    else:
        noisy[wrong] += rng.choice([-1, 1], len(wrong)) * 2.5 * y.std()
    return x, noisy, y, wrong


def review(estimator, x, noisy, **how):
    train = uw.Examples(x, noisy)
    return uw.mislabeled(uw.explainable(estimator.fit(x, noisy), train), train, **how)


@pytest.mark.parametrize("kind", ["digit", "shift"])
@pytest.mark.parametrize(
    "estimator",
    [make_pipeline(StandardScaler(), Ridge()), GradientBoostingRegressor(n_estimators=25, random_state=0)],
    ids=["ridge", "boosting"],
)
def test_planted_errors_are_found_as_by_residuals_or_better_and_far_better_than_by_chance(estimator, kind):
    ours, residuals, chance = [], [], []
    is_fast = not isinstance(estimator, GradientBoostingRegressor)
    for seed in range(3 if is_fast else 1):
        x, noisy, _, wrong = planted(kind, seed)
        suspects = review(estimator, x, noisy)
        for scores, ranking in (
            (ours, suspects.score),
            (residuals, np.abs(noisy - estimator.predict(x))),
            (chance, np.random.default_rng(seed).random(len(x))),
        ):
            scores.append(uw.detection_rates(ranking, suspects.train, wrong).auc)
    assert np.mean(ours) > 0.9 and np.mean(ours) > np.mean(residuals) - 0.01
    assert np.mean(ours) > np.mean(chance) + 0.35
    if kind == "digit":
        assert np.mean(ours) > np.mean(residuals)


def test_the_second_round_leaves_out_errors_and_so_suggests_nearer_targets():
    x, noisy, truth, wrong = planted("digit", 0)
    suspects = review(make_pipeline(StandardScaler(), Ridge()), x, noisy, budget=1.0 * len(x))
    held_out = suspects.held_out
    assert held_out.helps and 10 < held_out.left_out.sum() < 60
    assert np.isin(np.flatnonzero(held_out.left_out), wrong).mean() > 0.85
    assert held_out.agrees.shape == (2, len(x)) and not held_out.agrees[1][held_out.left_out].all()
    clean = make_pipeline(StandardScaler(), Ridge()).fit(x, truth)
    suggested = np.empty(len(x))
    suggested[suspects.train.positions(suspects.ids)] = suspects.suggested
    dirty = make_pipeline(StandardScaler(), Ridge()).fit(x, noisy).predict(x)
    assert np.abs(suggested - clean.predict(x)).mean() < 0.5 * np.abs(dirty - clean.predict(x)).mean()


def test_residuals_are_those_of_models_without_the_fold_and_of_the_left_out():
    x, noisy, _, _ = planted("shift", 1)
    suspects = review(Ridge(), x, noisy)
    fold = suspects.held_out.places[2]
    remaining = np.setdiff1d(np.arange(len(x)), fold)
    if suspects.held_out.helps:
        remaining = remaining[~suspects.held_out.left_out[remaining]]
    expected = noisy[fold] - Ridge().fit(x[remaining], noisy[remaining]).predict(x[fold])
    np.testing.assert_allclose(suspects.residual[fold], expected, rtol=1e-8)


def test_without_out_of_fold_predictions_a_high_leverage_error_is_ranked_by_its_leave_one_out_residual():
    """Its own residual is small, because the model follows it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 1))
    x[0] = 12.0
    y = x[:, 0] + 0.3 * rng.normal(size=60)
    y[0] = 10.3
    suspects = review(LinearRegression(), x, y, budget=5)
    assert suspects.ids[0] == 0
    model = uw.explainable(LinearRegression().fit(x, y), suspects.train)
    both = [
        target_errors(suspects.train, model.predict(suspects.train), suspects.loss, leave_one_out, None).suspicion
        for leave_one_out in (None, suspects.loss + suspects.self_influence)
    ]
    assert both[1][0] == 1.0 and both[0][0] < both[1][0]


def test_noise_that_grows_with_the_prediction_is_followed_and_constant_noise_is_not():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(1, 10, 600)
    noise, varies = noise_of(rng.normal(size=600) * predicted, predicted)
    assert varies and np.abs(np.log(noise / predicted)).mean() < 0.25
    noise, varies = noise_of(2.0 * rng.normal(size=600), predicted)
    assert not varies and noise == pytest.approx(np.full(600, 2.0), rel=0.1)
    assert (noise_of(np.zeros(5), np.arange(5.0))[0] > 0).all()


def test_an_error_where_noise_is_small_is_found_beside_large_noise():
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 1, size=(500, 1))
    y = 10 * x[:, 0] + 3.0 * x[:, 0] * rng.normal(size=500)
    low = np.flatnonzero(x[:, 0] < 0.2)[:10]
    y[low] += 2.5
    suspects = review(LinearRegression(), x, y, budget=25)
    assert any("noise varies" in note for note in suspects.notes)
    assert len(set(suspects.ids.tolist()) & set(low.tolist())) >= 8
    assert len(set(np.argsort(-np.abs(suspects.residual))[:25].tolist()) & set(low.tolist())) <= 5


def test_counts_rows_of_weight_zero_and_ids_of_text_are_reviewed_and_written_as_json():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 2))
    y = rng.poisson(np.exp(1 + 0.5 * x[:, 0]))
    y[5] += 30
    weights = np.where(np.arange(90) % 9 == 0, 0.0, 1.0)
    train = uw.Examples(x, y, ids=[f"r{i}" for i in range(90)], weights=weights)
    estimator = PoissonRegressor(alpha=0.01, tol=1e-8, max_iter=1000).fit(x, y, weights)
    held_out = uw.Examples(x[:20], y[:20])
    suspects = uw.mislabeled(uw.explainable(estimator, train), train, budget=8, evaluation=held_out)
    assert suspects.ids[0] == "r5" and suspects.is_regression and "targets" in repr(suspects)
    assert not any(int(i[1:]) % 9 == 0 for i in suspects.ids.tolist())
    assert np.isnan(suspects.held_out.loss[:, weights == 0]).all() and np.isfinite(suspects.noise).all()
    content = json.loads(json.dumps(suspects.as_dict(), allow_nan=False))
    row = content["suspects"][0]
    assert content["regression"] and row["label"] == int(y[5]) and row["probability"] is None
    assert row["residual"] == pytest.approx(y[5] - row["suggested"]) and row["harm"] is not None
    assert np.isnan(suspects.chances).all()


def test_the_page_lists_targets_most_suspicious_first(tmp_path):
    x, noisy, _, _ = planted("digit", 0)
    suspects = review(Ridge(), x, noisy, budget=3)
    text = uw.write_page(tmp_path / "page.html", suspects).read_text(encoding="utf-8")
    assert "Are these targets right?" in text and "standard deviation of the noise" in text
    places = [text.index(f'<th scope="row">{identifier}<') for identifier in suspects.ids.tolist()]
    assert places == sorted(places)


def test_networks_and_very_few_rows_are_ranked_with_notes():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(60, 3)), np.array([1.0, -1.0, 0.5])
    y = x @ w + 0.1 * rng.normal(size=60)
    y[7] += 3
    net = torch.nn.Linear(3, 1).double()
    with torch.no_grad():
        solved = np.linalg.lstsq(np.c_[x, np.ones(60)], y, rcond=None)[0]
        net.weight[:], net.bias[:] = torch.as_tensor(solved[None, :3]), torch.as_tensor(solved[3:])
    train = uw.Examples(x, y)
    model = uw.TorchModel(net, lambda net, batch: (net(batch.x)[:, 0] - batch.y) ** 2)
    suspects = uw.mislabeled(model, train, budget=3)
    assert suspects.ids[0] == 7 and any("targets are ranked by leave-one-out residual" in n for n in suspects.notes)
    few = review(LinearRegression(), x[:4, :1], y[:4])
    assert len(few.held_out.places) == 4 and any("4 folds" in note for note in few.notes)


def test_targets_that_cannot_be_reviewed_are_refused():
    x = np.random.default_rng(0).normal(size=(20, 2))
    two = uw.Examples(x, x + 0.1 * x[:, ::-1])
    with pytest.raises(ValueError, match="review one at a time"):
        uw.mislabeled(uw.explainable(Ridge().fit(two.x, two.y), two), two)

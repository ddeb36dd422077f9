"""Metagradients compared with retraining."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import upweight as uw

CALM = uw.Training(lr=0.05, momentum=0.9, weight_decay=1e-3, epochs=6, batch_size=25)
LONG = uw.Training(lr=0.1, momentum=0.9, epochs=20, batch_size=25)
STEEP = uw.Training(lr=1.0, momentum=0.9, epochs=6, batch_size=25)
ROUGH = uw.Training(lr=1.5, momentum=0.9, epochs=3, batch_size=2)


def fresh(seed: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, 12), nn.GELU(), nn.Linear(12, 10)).double()


def kinked(seed: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)).double()


def coarse_net(seed: int) -> nn.Module:
    return fresh(seed).to(torch.bfloat16)


def loss(net: nn.Module, batch: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")


@cache
def data() -> tuple[uw.Examples, uw.Examples]:
    x, y = load_digits(return_X_y=True)
    whole = uw.Examples(x / 16, y)
    return whole.take(range(150)), whole.take(range(1500, 1508))


@cache
def model(training: uw.Training = CALM, net: Any = fresh) -> uw.TorchModel:
    return uw.TorchModel.trained(net, loss, data()[0], training=training)


@cache
def truth(share: float) -> tuple[np.ndarray, np.ndarray]:
    """(weights (removals, n), effects (m, removals)) of random removals."""
    train, queries = data()
    rng = np.random.default_rng(3)
    weights = np.ones((24, len(train)))
    for row in weights:
        row[rng.choice(len(train), round(share * len(train)), replace=False)] = 0.0
    return weights, model().measure(queries)[:, None] - uw.retrain(model(), train, weights).measure(queries)


def correlation(scores: uw.Scores, share: float) -> tuple[float, float]:
    """Mean correlation within queries, and the slope of actual on predicted."""
    weights, actual = truth(share)
    predicted = scores.values @ (1 - weights).T
    each = [np.corrcoef(p, a)[0, 1] for p, a in zip(predicted, actual, strict=True)]
    p, a = (v - v.mean(axis=1, keepdims=True) for v in (predicted, actual))
    return float(np.mean(each)), float((p * a).sum() / (p**2).sum())


def test_by_default_it_predicts_single_examples_and_small_groups() -> None:
    train, queries = data()
    fitted = uw.Metagradient().fit(model(), train)
    check = uw.verify(model(), train, queries, fitted.attribute(queries), removals=16)
    for kind in ("one", "group"):
        agreed = check.of(kind)
        assert agreed.pearson > 0.95 and 0.8 < agreed.slope < 1.3, kind


def test_the_centre_predicts_large_removals_and_the_full_set_does_not() -> None:
    train, queries = data()
    centre = uw.Metagradient(keep=0.5).fit(model(), train).attribute(queries)
    full = uw.Metagradient(at="full", removals=0).fit(model(), train).attribute(queries)
    at_the_centre, slope = correlation(centre, 0.5)
    assert at_the_centre > 0.97 and 0.9 < slope < 1.1
    assert correlation(full, 0.5)[0] < at_the_centre
    assert centre.unit == uw.Unit.EFFECT and full.unit == uw.Unit.RANK


def test_small_removals_are_predicted_from_the_full_set() -> None:
    train, queries = data()
    scores = uw.Metagradient(at="full", keep=0.98, removals=4).fit(model(), train).attribute(queries)
    correlation_found, slope = correlation(scores, 0.02)
    assert correlation_found > 0.97 and 0.8 < slope < 1.25


BREAKS = {
    "tiny batches": (uw.Training(lr=0.05, momentum=0.9, epochs=6, batch_size=4), fresh),
    "large steps of a kinked net": (ROUGH, kinked),
}


@pytest.mark.sweep(2)
@pytest.mark.parametrize(("training", "net"), BREAKS.values(), ids=BREAKS)
def test_a_training_that_does_not_respond_smoothly_is_refused(training: uw.Training, net: Any) -> None:
    train, queries = data()
    fitted = uw.Metagradient(keep=0.9, removals=6).fit(model(training, net), train)
    with pytest.raises(ValueError, match="do not predict this training"):
        fitted.attribute(queries)


def test_retraining_reveals_low_precision() -> None:
    train, queries = data()
    recipe = uw.Metagradient(keep=0.993, floor=0.97)  # one example goes, which eight bits hardly show
    exact = recipe.fit(model(), train).attribute(queries)
    coarse = recipe.fit(model(CALM, coarse_net), train).attribute(queries)
    assert exact.unit == uw.Unit.EFFECT and coarse.unit == uw.Unit.RANK


def test_between_the_floors_scores_are_a_ranking_with_the_reason() -> None:
    train, queries = data()
    fitted = uw.Metagradient(at="full", keep=0.5, floor=0.9999).fit(model(), train)
    scores = fitted.attribute(queries)
    assert scores.unit == uw.Unit.RANK
    assert "retrainings at only" in " ".join(scores.diagnostics["warnings"])
    assert 0.2 < scores.diagnostics["agreement"] < 0.9999 and 0 < scores.diagnostics["metasmoothness"] <= 1


def test_slopes_at_half_the_weight_of_a_group_predict_its_removal() -> None:
    train, queries = data()
    fitted = uw.Metagradient(removals=0).fit(model(), train)
    weights, actual = truth(0.1)
    groups = {f"g{i}": train.ids[weights[i] == 0].tolist() for i in range(2)}
    effects = {rule: fitted.remove(groups, queries, form=rule) for rule in ("first", "midpoint", "simpson")}
    off = {rule: float(np.abs(scores.values - actual[:, :2]).mean()) for rule, scores in effects.items()}
    assert off["midpoint"] < 0.5 * off["first"] and off["simpson"] < 0.02 * off["first"]
    error_estimates = effects["simpson"].diagnostics["form_error"]
    assert error_estimates == pytest.approx(float(np.abs(effects["simpson"].values - effects["midpoint"].values).max()))


def test_scores_are_the_mean_over_the_runs_of_the_seeds() -> None:
    train, queries = data()
    fitted = uw.Metagradient(seeds=2, removals=3).fit(model(), train)
    runs = fitted.by_run(queries)
    assert runs.shape == (2, len(queries), len(train))
    assert np.array_equal(fitted.attribute(queries).values, runs.mean(axis=0))
    assert np.abs(runs[0] - runs[1]).max() > 0


def test_by_default_nothing_is_smoothed() -> None:
    train, queries = data()
    replay = model().replay(train, np.full(len(train), 0.9))
    exact = replay.gradients(model().with_parameters(replay.parameters).measure_rows(queries))
    for recipe in (
        uw.Metagradient(removals=0),
        uw.Metagradient(removals=0, jitter=0.0, clip=None),
        uw.Metagradient(removals=3),
    ):
        scores = recipe.fit(model(), train).attribute(queries)
        assert np.array_equal(scores.values, exact)
        assert not {"clipped", "spread"} & set(scores.diagnostics)
    never = uw.Metagradient(removals=0, clip=1e6).fit(model(), train).attribute(queries)
    assert np.array_equal(never.values, exact) and never.diagnostics["clipped"] == 0


def test_a_clip_bounds_an_adjoint_that_explodes() -> None:
    train, queries = data()
    effects = {}
    for clip in (None, 1.0):
        scores = uw.Metagradient(removals=0, clip=clip).fit(model(STEEP), train).attribute(queries)
        effects[clip] = float(np.abs(scores.values).max())
    assert effects[None] > 1000 and effects[1.0] < 50  # nats
    assert 0.5 < scores.diagnostics["clipped"] < 1


@pytest.mark.slow
def test_a_clipped_adjoint_predicts_a_long_rough_training_better() -> None:
    train, queries = data()
    rng = np.random.default_rng(3)
    weights = np.ones((40, len(train)))
    for row in weights:
        row[rng.choice(len(train), 15, replace=False)] = 0.0
    actual = model(LONG).measure(queries)[:, None] - uw.retrain(model(LONG), train, weights).measure(queries)
    exact, clipped = (
        uw.Metagradient(removals=0, clip=clip).fit(model(LONG), train).attribute(queries).values for clip in (None, 1.0)
    )
    by = [
        np.mean([np.corrcoef(p, a)[0, 1] for p, a in zip(values @ (1 - weights).T, actual, strict=True)])
        for values in (exact, clipped)
    ]
    assert by[1] > by[0] + 0.04


def test_clipped_scores_are_effects_only_if_retraining_confirms_their_size() -> None:
    train, queries = data()
    whole, short = (
        uw.Metagradient(removals=4, clip=clip).fit(model(), train).attribute(queries) for clip in (0.999, 0.9)
    )
    assert whole.unit == uw.Unit.EFFECT and whole.diagnostics["slope"] < 1.4 and not whole.diagnostics["warnings"]
    assert short.unit == uw.Unit.RANK and short.diagnostics["slope"] > 1.4 and short.diagnostics["agreement"] > 0.9
    assert "clipped" in short.diagnostics["warnings"][0] and uw.Metagradient(at="full", clip=0.9).promises.slope is None


def test_groups_are_differentiated_in_forward_mode_without_a_clip() -> None:
    train, queries = data()
    fitted = uw.Metagradient(removals=3, clip=0.9).fit(model(), train)
    assert fitted.unit == uw.Unit.RANK  # before any slope is known
    fitted.attribute(queries)
    groups = {"some": train.ids[:9].tolist()}
    effects = fitted.remove(groups, queries)
    exact = uw.Metagradient(removals=0).fit(model(), train).remove(groups, queries)
    assert np.array_equal(effects.values, exact.values)
    assert "clipped" not in effects.diagnostics and not effects.diagnostics["warnings"]


@pytest.mark.parametrize("at", ["full", pytest.param("centre", marks=pytest.mark.slow)])
def test_jittered_weights_are_seeded_and_small_ones_change_little(at: Any) -> None:
    train, queries = data()
    exact = uw.Metagradient(at=at, removals=0).fit(model(), train).attribute(queries).values
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # type: ignore[index, union-attr]
    recipe = uw.Metagradient(at=at, removals=0, jitter=1e-6, samples=2, seeds=2)
    fitted = recipe.fit(model(), train)
    runs = fitted.by_run(queries)
    assert runs.shape == (4, len(queries), len(train))
    assert np.abs(runs[:2] - exact).max() < 1e-3 * np.abs(exact).max() and np.abs(runs[0] - runs[1]).max() > 0
    assert np.array_equal(recipe.fit(model(), train).by_run(queries), runs)
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # type: ignore[index]
    assert torch.equal(torch_state, torch.random.get_rng_state())


def test_a_wide_jitter_gives_no_example_a_weight_below_zero() -> None:
    train, queries = data()
    scores = uw.Metagradient(removals=3, jitter=2.0, samples=2).fit(model(), train).attribute(queries)
    assert np.isfinite(scores.values).all() and scores.diagnostics["spread"] > 0.1


@pytest.mark.slow
def test_the_random_removals_do_not_depend_on_smoothing_and_warnings_name_what_is_left_to_try() -> None:
    train, queries = data()
    settings: dict[str, Any] = {"keep": 0.5, "floor": 0.9999, "removals": 3}
    bare, jittered, both = (
        uw.Metagradient(**settings, **more).fit(model(), train)
        for more in ({}, {"jitter": 0.1, "samples": 2}, {"jitter": 0.1, "samples": 2, "clip": 0.99})
    )
    assert bare.gate is not None and jittered.gate is not None
    assert np.array_equal(bare.gate.removals, jittered.gate.removals)
    answers = [fitted.attribute(queries) for fitted in (bare, jittered, both)]
    warnings = [" ".join(scores.diagnostics["warnings"]) for scores in answers]
    assert [("clip=" in words, "jitter=" in words) for words in warnings] == [
        (True, True),
        (True, False),
        (False, False),
    ]
    assert all("SOURCE" in words for words in warnings)
    assert 0 < answers[2].diagnostics["clipped"] < 1 and answers[2].diagnostics["spread"] > 0
    fitted = uw.Metagradient(removals=3).fit(model(*BREAKS["tiny batches"]), train)
    with pytest.raises(ValueError, match=r"clip=.*jitter=.*SOURCE"):
        fitted.attribute(queries)


ANOTHER = {
    "learning rate": {"lr": 0.052},
    "order of the data": {"seed": 1},
    "decay": {"weight_decay": 0.0},
    "fewer steps": {"epochs": 5},
    "optimiser": {"optimiser": "adam", "momentum": 0.0, "lr": 0.001},
}


@pytest.mark.parametrize("settings", ANOTHER.values(), ids=ANOTHER)
def test_another_training_than_that_of_the_model_is_refused_at_once(settings: dict[str, Any]) -> None:
    train, _ = data()
    begins = fresh(0)
    trained = uw.TorchModel.trained(begins, loss, train, training=CALM)
    replaced = replace(CALM, initial=begins)
    uw.Metagradient(removals=0).fit(uw.TorchModel(trained.network.net, loss, training=replaced), train)
    other = replace(replaced, **settings)
    with pytest.raises(ValueError, match="not how this net was trained"):
        uw.Metagradient().fit(uw.TorchModel(trained.network.net, loss, training=other), train)


def test_another_training_set_or_order_of_it_is_refused_at_once() -> None:
    train, _ = data()
    for other in (train.take(range(149, -1, -1)), uw.Examples(train.x, np.roll(train.y, 1))):
        with pytest.raises(ValueError, match="its order"):
            uw.Metagradient().fit(model(), other)


def test_a_training_that_does_not_repeat_is_refused_at_once() -> None:
    train, _ = data()
    rng, calls = np.random.default_rng(0), []

    def noisy(net: nn.Module, batch: Any) -> torch.Tensor:
        calls.append(len(batch.y))
        return loss(net, batch) * (1 + 1e-9 * rng.random())

    replaced = uw.TorchModel(model().network.net, noisy, training=model().training)
    with pytest.raises(ValueError, match=r"not deterministic.*seeded in every step"):
        uw.Metagradient().fit(replaced, train)
    assert len(calls) < 6  # of 36 steps


@pytest.mark.parametrize(
    "wrong",
    [
        {"at": "middle"},
        {"keep": 1.0},
        {"seeds": 0},
        {"removals": 2},
        {"at": "full", "samples": 3},
        {"clip": 0.0},
        {"clip": -1.0},
        {"clip": np.nan},
        {"clip": np.inf},
        {"jitter": -0.1, "samples": 4},
        {"jitter": np.nan, "samples": 4},
        {"jitter": np.inf, "samples": 4},
        {"jitter": 0.1},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        uw.Metagradient(**wrong)


def test_groups_must_be_some_of_the_examples() -> None:
    train, queries = data()
    fitted = uw.Metagradient(removals=0).fit(model(), train)
    for groups in ({}, {"all": train.ids.tolist()}):
        with pytest.raises(ValueError, match=r"at least one group|some of the 150 training examples"):
            fitted.remove(groups, queries)
    with pytest.raises(ValueError, match="expected form"):
        fitted.remove({"a": [0]}, queries, form="trapezium")

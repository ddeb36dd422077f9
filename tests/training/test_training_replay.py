"""Derivatives through training against autograd through the whole loop, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

import upweight as uw
from support.autograd_through_training import by_autograd, measured_gradients
from upweight.training import trainer
from upweight.training.training_replay import TrainingReplay

N = 20
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1},
    "decay": {"lr": 0.1, "weight_decay": 0.05},
    "momentum": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "schedule": "linear"},
    "nesterov, clipped": {"lr": 0.1, "momentum": 0.8, "nesterov": True, "clip": 0.3, "schedule": "cosine", "warmup": 2},
    "adam": {"optimiser": "adam", "lr": 0.02, "weight_decay": 0.1},
    "adam, eps inside": {"optimiser": "adam", "lr": 0.02, "eps_root": 1e-6, "clip": 0.5},
    "adamw": {"optimiser": "adamw", "lr": 0.02, "weight_decay": 0.1, "clip": 0.4, "schedule": "linear"},
    "renormalised": {"lr": 0.1, "momentum": 0.5, "denominator": "renormalised"},
}


class Attention(nn.Module):
    """One head over three positions, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.MultiheadAttention(4, 2, dropout=0.1, batch_first=True)
        self.norm, self.out = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :12].reshape(-1, 3, 4)
        return self.out(self.norm(x + self.inside(x, x, x, need_weights=False)[0]).mean(1))


NETS = {
    "mlp with dropout": lambda seed: nn.Sequential(
        nn.Linear(12, 6), nn.GELU(), nn.Dropout(0.3), nn.Linear(6, 3)
    ).double(),
    "conv": lambda seed: nn.Sequential(
        nn.Unflatten(1, (1, 3, 4)), nn.Conv2d(1, 3, 2), nn.GroupNorm(3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3)
    ).double(),
    "attention": lambda seed: Attention().double(),
}


def loss(net: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")


@pytest.fixture(scope="module")
def data() -> tuple[uw.Examples, uw.Examples]:
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 2.0, N)
    train = uw.Examples(rng.normal(size=(N, 12)), rng.integers(0, 3, N), weights=weights)
    return train, uw.Examples(rng.normal(size=(3, 12)), rng.integers(0, 3, 3))


def trained(train: uw.Examples, net: str = "mlp with dropout", **settings: Any) -> uw.TorchModel:
    training = uw.Training(**{"epochs": 3, "batch_size": 6, **settings})
    return uw.TorchModel.trained(NETS[net], loss, train, training=training)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_adjoint_of_every_optimiser_equals_autograd(data: Any, settings: dict[str, Any]) -> None:
    train, queries = data
    model = trained(train, **settings)
    weights = np.random.default_rng(1).uniform(0.2, 1.0, N)
    gradients = measured_gradients(model, model.replay(train, weights), queries)
    expected = by_autograd(model, train, weights, queries)
    assert np.abs(gradients - expected).max() <= 1e-10 * np.abs(expected).max()


@pytest.mark.sweep(2)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_clipped_adjoint_equals_clipped_autograd(data: Any, settings: dict[str, Any]) -> None:
    train, queries = data
    model = trained(train, **settings)
    weights = np.random.default_rng(1).uniform(0.2, 1.0, N)
    replay = model.replay(train, weights)
    exact = measured_gradients(model, replay, queries)
    assert replay.clipped == 0
    gradients = measured_gradients(model, replay, queries, clip=0.99)
    assert 0 < replay.clipped < 1 and np.abs(gradients - exact).max() > 1e-3 * np.abs(exact).max()
    expected = by_autograd(model, train, weights, queries, clip=0.99)
    assert np.abs(gradients - expected).max() <= 1e-10 * np.abs(expected).max()


def test_a_clip_that_is_never_reached_changes_no_bit(data: Any) -> None:
    train, queries = data
    for settings in ({"lr": 0.1, "momentum": 0.9}, {"optimiser": "adamw", "lr": 0.02}):
        model = trained(train, **settings)
        replay = model.replay(train, np.ones(N))
        exact = measured_gradients(model, replay, queries)
        assert np.array_equal(measured_gradients(model, replay, queries, clip=1e6), exact) and replay.clipped == 0


@pytest.mark.parametrize("net", NETS)
def test_every_kind_of_net_can_be_differentiated(data: Any, net: str) -> None:
    train, queries = data
    model = trained(train, net, optimiser="adamw", lr=0.02)
    gradients = measured_gradients(model, model.replay(train, np.ones(N)), queries)
    expected = by_autograd(model, train, np.ones(N), queries)
    assert np.abs(gradients - expected).max() <= 1e-10 * np.abs(expected).max()


@pytest.mark.sweep(2)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_forwards_and_backwards_agree(data: Any, settings: dict[str, Any]) -> None:
    train, queries = data
    model = trained(train, **settings)
    replay = model.replay(train, np.full(N, 0.5))
    directions = np.random.default_rng(2).normal(size=(2, N))
    trained_model = model.after(replay)
    forwards = trained_model.measure_rows(queries).dense() @ replay.shifts(directions).T
    backwards = replay.gradients(trained_model.measure_rows(queries)) @ directions.T
    assert np.abs(forwards - backwards).max() <= 1e-12 * np.abs(backwards).max()


def test_a_replay_ends_where_retraining_ends(data: Any) -> None:
    train, _ = data
    model, weights = trained(train, lr=0.1, momentum=0.9), np.linspace(0, 1, N)
    assert np.array_equal(model.replay(train, weights, 3).parameters, model.retrain(train, weights, 3).parameters)


def test_parameters_without_any_gradient_give_no_nan(data: Any) -> None:
    train, queries = data
    dead = uw.Examples(np.where(np.arange(12) < 4, 0.0, train.x), train.y, weights=train.weights)
    model = trained(dead, optimiser="adam", lr=0.02)
    replay = model.replay(dead, np.ones(N))
    gradients = measured_gradients(model, replay, queries)
    expected = by_autograd(model, dead, np.ones(N), queries)
    assert np.abs(gradients - expected).max() <= 1e-10 * np.abs(expected).max()
    assert np.isfinite(replay.shifts(np.ones((1, N)))).all()


@pytest.mark.parametrize("clip", [None, 0.98])
def test_a_pass_in_small_memory_gives_the_same(data: Any, clip: float | None) -> None:
    train, queries = data
    model = trained(train, lr=0.1, momentum=0.9)
    replay = model.replay(train, np.ones(N))
    whole = measured_gradients(model, replay, queries, clip)
    (run,) = trainer.make_runs(model.training, model.network, train, np.ones((1, N)), [0])
    small = TrainingReplay(run, np.ones(N), train.weights, cotangent_bytes=1, vector_bytes=1)
    gradients = measured_gradients(model, small, queries, clip)
    assert np.abs(gradients - whole).max() <= 1e-13 * np.abs(whole).max() and small.clipped == replay.clipped


def test_a_training_without_a_derivative_is_refused(data: Any) -> None:
    train, _ = data
    with pytest.raises(ValueError, match="draws other batches"):
        trained(train, lr=0.1, denominator="rebatched").replay(train, np.ones(N))


def test_a_training_function_cannot_be_replayed(data: Any) -> None:
    train, _ = data
    model = trained(train, lr=0.1)
    function_trained = uw.TorchModel(model.network.net, loss, training=lambda weights, seed: model.network.net)
    with pytest.raises(TypeError, match="a function of yours"):
        function_trained.replay(train, np.ones(N))

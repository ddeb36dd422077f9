"""Derivatives through what trainings do, against autograd, and against differences of a plain loop with torch.optim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import upweight as uw
from support.autograd_through_training import by_autograd, measured_gradients
from support.plain_training import central_differences, train_plainly

N, CLASS_WEIGHTS = 18, np.array([0.5, 2.0, 1.0])
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, 8)), RNG.integers(0, 3, N)
TRAIN = uw.Examples(X, Y, weights=RNG.uniform(0.5, 2.0, N))
QUERIES = uw.Examples(RNG.normal(size=(3, 8)), [0, 1, 2])
BIASES = uw.ParameterGroup(parameters="*.bias", weight_decay=0.0)
HEAD = uw.ParameterGroup(parameters=["2.weight"], lr=0.03, weight_decay=0.4)


def heavy_ball(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float, t: int) -> Any:
    velocity = 0.9 * state["velocity"] - lr * gradient / (gradient.square() + 0.1).sqrt()
    return parameter + velocity, {"velocity": velocity}


def noisy(batch: Any, generator: torch.Generator) -> Any:
    return replace(batch, x=batch.x + 0.1 * torch.randn(batch.x.shape, generator=generator, dtype=batch.x.dtype))


SETTINGS: dict[str, dict[str, Any]] = {
    "groups, sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "groups": [BIASES, HEAD], "clip": 0.5},
    "groups, adam": {"optimiser": "adam", "lr": 0.02, "weight_decay": 0.1, "groups": [BIASES, HEAD]},
    "groups, adamw": {"optimiser": "adamw", "lr": 0.02, "groups": [BIASES, HEAD], "warmup": 3, "schedule": "cosine"},
    "rmsprop": {"optimiser": "rmsprop", "lr": 0.01, "weight_decay": 0.05},
    "rmsprop, centred": {"optimiser": "rmsprop", "lr": 0.01, "centred": True, "eps": 1e-3, "groups": [HEAD]},
    "rmsprop, momentum": {"optimiser": "rmsprop", "lr": 0.005, "momentum": 0.8, "alpha": 0.9, "clip": 0.5},
    "accumulation": {"lr": 0.1, "momentum": 0.9, "accumulate": 3, "batch_size": 2, "denominator": "renormalised"},
    "accumulation, one mean": {"lr": 0.1, "accumulate": 4, "batch_size": 4, "mean_over": "step"},
    "accumulated batches": {"lr": 0.1, "epochs": None, "batches": [[[0, 1, 2], [3, 4]], [5, 6], [[7], [8, 0]]]},
    "warm-up": {"lr": 0.1, "schedule": lambda t: min(1.0, t / 4), "momentum": 0.9},
    "class weights": {"lr": 0.1, "counts": CLASS_WEIGHTS[Y], "denominator": "renormalised"},
    "class weights, fixed": {"lr": 0.1, "counts": CLASS_WEIGHTS[Y], "accumulate": 2, "batch_size": 3},
    "average": {"lr": 0.1, "momentum": 0.9, "ema": 0.8, "weight_decay": 0.05},
    "average, adamw": {"optimiser": "adamw", "lr": 0.02, "ema": 0.6, "groups": [BIASES]},
    "augmentation": {"lr": 0.1, "augment": noisy, "accumulate": 2, "batch_size": 3},
    "own rule": {"optimiser": uw.UpdateRule(heavy_ball, ("velocity",)), "lr": 0.02, "clip": 0.5},
    "own rule, groups": {
        "optimiser": uw.UpdateRule(heavy_ball, ("velocity",)),
        "lr": 0.02,
        "groups": [uw.ParameterGroup(parameters="*.bias", lr=0.05)],
    },
}


def loss(net: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none", label_smoothing=0.1)


def weighted_loss(net: nn.Module, batch: Any) -> Tensor:
    classes = torch.as_tensor(CLASS_WEIGHTS)
    return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none", weight=classes)


def fresh(seed: int) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3), nn.Dropout(0.2)).double()


def trained(train: uw.Examples = TRAIN, make: Any = fresh, **settings: Any) -> uw.TorchModel:
    settings = {"epochs": 3, "batch_size": 6, **settings}
    chosen = weighted_loss if "counts" in settings else loss
    return uw.TorchModel.trained(make, chosen, train, training=uw.Training(**settings))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_what_a_training_does_is_differentiated(settings: dict[str, Any]) -> None:
    model, weights = trained(**settings), np.random.default_rng(1).uniform(0.3, 1.0, N)
    replay = model.replay(TRAIN, weights)
    net = train_plainly(model, TRAIN, weights * TRAIN.weights)
    plain = torch.cat([p.detach().flatten() for p in net.parameters()]).numpy()
    assert np.allclose(replay.parameters, plain, rtol=0, atol=1e-12)
    assert np.array_equal(replay.parameters, model.retrain(TRAIN, weights).parameters)

    gradients = measured_gradients(model, replay, QUERIES)
    scale = np.abs(gradients).max()
    assert np.abs(gradients - by_autograd(model, TRAIN, weights, QUERIES)).max() <= 1e-10 * scale
    rows = [0, 3, 8]
    differences = central_differences(model, TRAIN, weights, QUERIES, rows, 1e-5)
    assert np.abs(gradients[:, rows] - differences).max() <= 1e-6 * scale

    directions = np.random.default_rng(2).normal(size=(2, N))
    forwards = model.with_parameters(replay.parameters).measure_rows(QUERIES).dense() @ replay.shifts(directions).T
    assert np.allclose(forwards, gradients @ directions.T, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize(
    "layer", [nn.RReLU, lambda: nn.utils.parametrizations.weight_norm(nn.Linear(5, 5))], ids=["rrelu", "weight norm"]
)
def test_an_operator_without_a_forward_mode_is_refused_in_a_sentence(layer: Any) -> None:
    model = trained(make=lambda seed: nn.Sequential(nn.Linear(8, 5), layer(), nn.Linear(5, 3)).double(), lr=0.1)
    with pytest.raises(ValueError, match=r"forward mode.*use a method that does not go back through the training"):
        uw.Metagradient(at="full", removals=0).fit(model, TRAIN).attribute(QUERIES)

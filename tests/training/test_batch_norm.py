"""Derivatives through batch norms in training mode: batch statistics couple examples, running statistics are state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import upweight as uw
from support.autograd_through_training import by_autograd, measured_gradients
from support.plain_training import central_differences, train_plainly

N = 18
RNG = np.random.default_rng(0)
TRAIN = uw.Examples(RNG.normal(size=(N, 8)), RNG.integers(0, 3, N), weights=RNG.uniform(0.5, 2.0, N))
QUERIES = uw.Examples(RNG.normal(size=(3, 8)), [0, 1, 2])


class Residual(nn.Module):
    """Two convolutions around a shortcut, each with a batch norm, and one norm that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.norm = nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3, momentum=0.3)
        self.conv, self.again = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3, affine=False)
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.start(x.view(-1, 1, 2, 4))))
        x = torch.tanh(x + self.again(self.conv(self.again(x))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


NETS: dict[str, Any] = {
    "vectors": lambda seed: nn.Sequential(
        nn.Linear(8, 5, bias=False), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 3)
    ),
    "sequences": lambda seed: nn.Sequential(
        nn.Unflatten(1, (2, 4)), nn.Conv1d(2, 3, 2, bias=False), nn.BatchNorm1d(3, momentum=None),
        nn.Tanh(), nn.Flatten(), nn.Linear(9, 3),
    ),
    "residual": lambda seed: Residual(),
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.02},
    "adamw, accumulated, averaged": {"optimiser": "adamw", "lr": 0.02, "accumulate": 2, "batch_size": 4, "ema": 0.7},
}


def loss(net: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")


def trained(net: str, **settings: Any) -> uw.TorchModel:
    def fresh(seed: int) -> nn.Module:
        made: nn.Module = NETS[net](seed).double()
        return made

    training = uw.Training(**{"epochs": 3, "batch_size": 6, **settings})
    return uw.TorchModel.trained(fresh, loss, TRAIN, training=training)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("net", NETS)
def test_batch_norms_are_differentiated(net: str, settings: dict[str, Any]) -> None:
    model, weights = trained(net, **settings), np.random.default_rng(1).uniform(0.3, 1.0, N)
    replay = model.replay(TRAIN, weights)
    plain = dict(train_plainly(model, TRAIN, weights * TRAIN.weights).named_buffers())
    after = dict(model.after(replay).network.net.named_buffers())
    assert all(torch.allclose(after[name], buffer, rtol=0, atol=1e-12) for name, buffer in plain.items())
    assert np.array_equal(replay.parameters, model.retrain(TRAIN, weights).parameters)

    gradients = measured_gradients(model, replay, QUERIES)
    scale = np.abs(gradients).max()
    rows = [0, 3, 8]
    differences = central_differences(model, TRAIN, weights, QUERIES, rows, 1e-5)
    assert np.abs(gradients[:, rows] - differences).max() <= 1e-6 * scale
    assert np.abs(gradients - by_autograd(model, TRAIN, weights, QUERIES)).max() <= 1e-10 * scale

    directions = np.random.default_rng(2).normal(size=(2, N))
    forwards = model.after(replay).outcome_rows(QUERIES, replay).dense() @ replay.shifts(directions).T
    assert np.allclose(forwards, gradients @ directions.T, rtol=0, atol=1e-10 * scale)


def test_running_statistics_carry_a_part_of_the_effect() -> None:
    model = trained("vectors", lr=0.1)
    replay = model.replay(TRAIN, np.ones(N))
    whole = replay.gradients(model.after(replay).outcome_rows(QUERIES, replay))
    rows = model.after(replay).outcome_rows(QUERIES, replay).dense()
    rows[:, len(replay.parameters) :] = 0.0
    parameters_alone = replay.gradients(uw.DenseRows(rows))
    assert np.abs(whole - parameters_alone).max() > 0.01 * np.abs(whole).max()


def test_the_metagradient_of_a_net_with_batch_norm_predicts_retraining() -> None:
    model = trained("residual", lr=0.05)
    before = {name: value.clone() for name, value in model.network.net.state_dict().items()}
    fitted = uw.Metagradient(at="full", removals=4).fit(model, TRAIN)
    scores = fitted.attribute(QUERIES)
    assert scores.diagnostics["agreement"] > 0.9
    groups = fitted.remove({"two": [1, 5]}, QUERIES, form="simpson")
    without = np.where(np.isin(np.arange(N), [1, 5]), 0.0, 1.0)
    effect = model.measure(QUERIES) - model.retrain(TRAIN, without).measure(QUERIES)
    assert np.abs(groups.values[:, 0] - effect).max() <= 0.05 * np.abs(effect).max()
    assert all(torch.equal(before[name], value) for name, value in model.network.net.state_dict().items())


def test_an_interrupted_pass_through_batch_norm_is_read_from_its_folder(tmp_path: Any) -> None:
    model = trained("vectors", lr=0.1)
    fitted = uw.Metagradient(at="full", removals=0, folder=tmp_path).fit(model, TRAIN)
    first = fitted.attribute(QUERIES).values
    assert list(tmp_path.glob("*.npz"))
    assert np.array_equal(fitted.attribute(QUERIES).values, first)


class OwnStatistics(nn.Module):
    """A net that updates statistics by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.register_buffer("level", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.level.mul_(0.9).add_(0.1 * x.detach().mean(0))  # type: ignore[operator, union-attr]
        out: Tensor = self.head(x - self.level)
        return out


class SubclassedNorm(nn.BatchNorm1d):
    """A batch norm with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (OwnStatistics(), "the buffer 'level' of a OwnStatistics.*Use one of them"),
        (nn.Sequential(SubclassedNorm(8), nn.Linear(8, 3)), "'0.running_mean' of a SubclassedNorm"),
        (nn.Sequential(nn.SyncBatchNorm(8), nn.Linear(8, 3)), "'0' is a SyncBatchNorm.*examples of all processes"),
    ],
)
def test_other_statistics_are_refused_before_the_training(net: nn.Module, message: str) -> None:
    model = uw.TorchModel(net.double(), loss, training=uw.Training(lr=0.1, epochs=10_000, initial=net))
    with pytest.raises(ValueError, match=message):
        uw.Metagradient().fit(model, TRAIN)
    with pytest.raises(ValueError, match=message):
        model.replay(TRAIN, np.ones(N))


def test_statistics_that_were_estimated_anew_are_refused() -> None:
    model = trained("vectors", lr=0.1)
    moved = uw.TorchModel(model.network.net, loss, training=model.training)
    with torch.no_grad():
        moved.network.net[1].running_var.mul_(2.0)  # type: ignore[index, union-attr, operator]
    with pytest.raises(ValueError, match="other running statistics"):
        uw.Metagradient(at="full", removals=0).fit(moved, TRAIN)

"""Small trained networks: an MLP, a CNN and a transformer, as problems for the laws."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.datasets import load_digits
from torch import nn

import upweight as uw

KEPT: list[Any] = []


class Transformer(nn.Module):
    """One block of attention and an MLP over the rows of a picture, mean-pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 12)
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x.unflatten(1, (8, 8)))
        q, k, v = self.qkv(h).chunk(3, dim=-1)
        h = h + self.out(F.scaled_dot_product_attention(q, k, v))
        return self.head(F.gelu(self.norm(h)).mean(dim=1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 10), nn.GELU(), nn.Linear(10, 3))


def cnn() -> nn.Module:
    layers = nn.Conv2d(1, 4, 3, stride=2), nn.GELU(), nn.Conv2d(4, 6, 2), nn.GELU(), nn.Flatten(), nn.Linear(24, 3)
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *layers)


def cross_entropy(net: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


@cache
def trained(make: Callable[[], nn.Module]) -> tuple[dict[str, torch.Tensor], uw.Trajectory]:
    """Parameters after a short training on the first digits 0, 1, 2, and what was recorded of it."""
    torch.manual_seed(0)
    folder = tempfile.TemporaryDirectory()  # gone with the process
    KEPT.append(folder)
    trajectory = uw.Trajectory(folder.name, every=15)
    net = make().double()
    x, y = (torch.as_tensor(part[:60]) for part in digits())
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimiser.step()
        trajectory.record(net, optimiser)
    return net.state_dict(), trajectory


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(n_class=3, return_X_y=True)
    return x / 16, y


@dataclass(frozen=True)
class NetworkProblem:
    """A trained net on sixty digits and twelve queries, in float64."""

    name: str
    make: Callable[[], nn.Module]
    regression: bool = False

    def examples(self) -> tuple[uw.Examples, uw.Examples]:
        """Training set and queries, ids that are no positions."""
        x, y = digits()
        whole = uw.Examples(x, y, ids=np.array([f"d{i}" for i in range(len(y))]))
        return whole.take(np.arange(60)), whole.take(np.arange(60, 72))

    def model(self, train: uw.Examples) -> Any:
        """The trained net, whatever the order of the examples."""
        net = self.make().double()
        state, trajectory = trained(self.make)
        net.load_state_dict(state)
        return uw.TorchModel(net, cross_entropy, l2=0.01, trajectory=trajectory)

    def belongings(self, model: Any) -> bytes:
        """Parameters, gradients, modes and hooks of the net."""
        net = model.network.net
        state = b"".join(v.numpy().tobytes() for v in net.state_dict().values())
        hooks = sum(len(m._forward_hooks) + len(m._backward_hooks) + len(m._forward_pre_hooks) for m in net.modules())
        grads = [p.grad is None and p.requires_grad for p in net.parameters()]
        return state + repr((hooks, grads, [m.training for m in net.modules()], torch.random.get_rng_state())).encode()

    def outputs(self, model: Any, x: Any) -> np.ndarray:
        """Logits (n, classes)."""
        with torch.no_grad():
            return model.network.net(torch.as_tensor(x)).numpy()


@dataclass(frozen=True)
class TrainedProblem(NetworkProblem):
    """The same, trained in full batches by a recipe that can be made again: the order of examples plays no part."""

    def model(self, train: uw.Examples) -> Any:
        """The net that this training set gives."""
        torch_state = torch.random.get_rng_state()
        torch.manual_seed(0)
        net = self.make().double()
        torch.random.set_rng_state(torch_state)
        training = uw.Training(lr=0.05, momentum=0.9, weight_decay=0.01, epochs=15, batch_size=len(train))
        return uw.TorchModel.trained(net, cross_entropy, train, training=training)


@dataclass(frozen=True)
class RecordedProblem(NetworkProblem):
    """The same, trained on this training set, with the examples of every step recorded: the order plays no part."""

    def model(self, train: uw.Examples) -> Any:
        """The net that this training set gives, with its trajectory."""
        folder = tempfile.TemporaryDirectory()
        KEPT.append(folder)
        net, trajectory = self.make().double(), uw.Trajectory(folder.name, every=15)
        net.load_state_dict(trained(self.make)[0])
        optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
        trajectory.save(net, optimiser)
        x, y = torch.as_tensor(train.x), torch.as_tensor(train.y)
        for _ in range(30):
            optimiser.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimiser.step()
            trajectory.record(net, optimiser, batch=train.ids)
        return uw.TorchModel(net, cross_entropy, l2=0.01, trajectory=trajectory)


RECORDED = [RecordedProblem("recorded mlp", mlp), RecordedProblem("recorded transformer", Transformer)]
TRAINED = [TrainedProblem("trained mlp", mlp), TrainedProblem("trained transformer", Transformer)]
NETWORKS = [NetworkProblem("mlp", mlp), NetworkProblem("cnn", cnn), NetworkProblem("transformer", Transformer)]

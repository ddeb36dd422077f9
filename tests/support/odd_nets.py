"""Networks as people build them, each with data and a loss per example, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import upweight as uw

Loss = Callable[[nn.Module, Any], Tensor]


class Net(nn.Module):
    """A net whose forward pass is a function of itself and the inputs."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


@dataclass(frozen=True)
class OddNet:
    """How to make a net, its loss, and what its inputs are: rows of numbers, sequences, images or token ids."""

    make: Callable[[], nn.Module]
    loss: Loss
    inputs: str = "rows"
    labels: str = "classes"

    def examples(self, count: int = 21) -> uw.Examples:
        rng = np.random.default_rng(0)
        x = {
            "rows": lambda: rng.normal(size=(count, 5)),
            "sequences": lambda: rng.normal(size=(count, 4, 5)),
            "images": lambda: rng.normal(size=(count, 2, 5, 5)),
            "tokens": lambda: rng.integers(0, 9, (count, 4)),
            "times": lambda: np.linspace(0, 3, count)[:, None],
        }[self.inputs]()
        y = {
            "classes": lambda: rng.integers(0, 3, count),
            "numbers": lambda: rng.normal(size=count),
            "column": lambda: rng.normal(size=(count, 1)),
        }[self.labels]()
        return uw.Examples(x, y)

    def model(self) -> uw.TorchModel:
        torch.manual_seed(0)
        return uw.TorchModel(self.make().double(), self.loss)


def cross_entropy(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def first_of(key: Any) -> Loss:
    return lambda net, batch: F.cross_entropy(net(batch.x)[key], batch.y, reduction="none")


def square(net: nn.Module, batch: Any) -> Tensor:
    return (net(batch.x).reshape(-1) - batch.y.reshape(-1)) ** 2


def autoencoder(net: nn.Module, batch: Any) -> Tensor:
    decoded, mean, log_variance = net(batch.x)
    divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum(1) / 2
    return ((decoded - batch.x) ** 2).sum(1) + divergence


def residual(net: nn.Module, batch: Any) -> Tensor:
    x = batch.x.clone().requires_grad_(True)
    u = net(x)
    slope = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    return (slope + torch.sin(x)).square()[:, 0] + batch.y * u[:, 0] ** 2


def experts(net: Any, x: Tensor) -> Tensor:
    shares = net.gate(x).softmax(1)
    best, out = shares.argmax(1), x.new_zeros(len(x), 3)
    for k, expert in enumerate(net.experts):
        chosen = best == k
        if chosen.any():
            out[chosen] = expert(x[chosen]) * shares[chosen, k : k + 1]
    return out


def sorted_pass(net: Any, x: Tensor) -> Tensor:
    order = x[:, 0].argsort()
    return net.head(torch.tanh(net.body(x[order])))[order.argsort()]


def two_experts(net: Any, x: Tensor) -> Tensor:
    return torch.stack([(net.left if row[0] > 0 else net.right)(row) for row in x])


ODD_NETS: dict[str, OddNet] = {
    "temperature": OddNet(
        lambda: Net(lambda n, x: n.head(x) * n.scale, head=nn.Linear(5, 3), scale=torch.tensor(1.3)), cross_entropy
    ),
    "global bias": OddNet(
        lambda: Net(lambda n, x: n.head(x)[:, 0] + n.bias, head=nn.Linear(5, 1), bias=torch.tensor(0.3)),
        square,
        labels="numbers",
    ),
    "output (n,)": OddNet(lambda: Net(lambda n, x: n.head(x)[:, 0], head=nn.Linear(5, 1)), square, labels="numbers"),
    "output (n, 1)": OddNet(
        lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)),
        lambda net, b: ((net(b.x) - b.y) ** 2).mean(1),
        labels="column",
    ),
    "matrix factorisation": OddNet(
        lambda: Net(
            lambda n, x: n.bias + (n.users(x[:, 0]) * n.items(x[:, 1])).sum(1),
            users=nn.Embedding(9, 3),
            items=nn.Embedding(9, 3),
            bias=torch.tensor([0.5]),
        ),
        square,
        "tokens",
        "numbers",
    ),
    "LSTM": OddNet(
        lambda: Net(
            lambda n, x: n.head(n.body(x)[0][:, -1])[:, 0], body=nn.LSTM(5, 3, batch_first=True), head=nn.Linear(3, 1)
        ),
        square,
        "sequences",
        "numbers",
    ),
    "GRU": OddNet(
        lambda: Net(
            lambda n, x: n.head(n.body(x)[0][:, -1]), body=nn.GRU(5, 3, batch_first=True), head=nn.Linear(3, 3)
        ),
        cross_entropy,
        "sequences",
    ),
    "embedding bag": OddNet(
        lambda: nn.Sequential(nn.EmbeddingBag(9, 3, mode="mean"), nn.Linear(3, 3)), cross_entropy, "tokens"
    ),
    "sparse embedding": OddNet(
        lambda: Net(
            lambda n, x: n.head(n.words(x).mean(1)), words=nn.Embedding(9, 3, sparse=True), head=nn.Linear(3, 3)
        ),
        cross_entropy,
        "tokens",
    ),
    "sparse embedding bag": OddNet(
        lambda: nn.Sequential(nn.EmbeddingBag(9, 3, mode="sum", sparse=True), nn.Linear(3, 3)), cross_entropy, "tokens"
    ),
    "experts": OddNet(
        lambda: Net(experts, gate=nn.Linear(5, 3), experts=nn.ModuleList(nn.Linear(5, 3) for _ in range(3))),
        cross_entropy,
    ),
    "expert for each row": OddNet(lambda: Net(two_experts, left=nn.Linear(5, 3), right=nn.Linear(5, 3)), cross_entropy),
    "rows sorted inside": OddNet(lambda: Net(sorted_pass, body=nn.Linear(5, 4), head=nn.Linear(4, 3)), cross_entropy),
    "tuple": OddNet(
        lambda: Net(lambda n, x: (n.head(z := torch.tanh(n.body(x))), z), body=nn.Linear(5, 4), head=nn.Linear(4, 3)),
        first_of(0),
    ),
    "dict": OddNet(lambda: Net(lambda n, x: {"class": n.head(x), "input": x}, head=nn.Linear(5, 3)), first_of("class")),
    "autoencoder": OddNet(
        lambda: Net(
            lambda n, x: (n.decode(n.mean(x)), n.mean(x), n.spread(x)),
            mean=nn.Linear(5, 2),
            spread=nn.Linear(5, 2),
            decode=nn.Linear(2, 5),
        ),
        autoencoder,
    ),
    "derivative in the loss": OddNet(
        lambda: nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)), residual, "times", "numbers"
    ),
    "net called twice": OddNet(
        lambda: nn.Linear(5, 3), lambda net, b: cross_entropy(net, b) + net(b.x + 1).square().mean(1)
    ),
    "raw table": OddNet(
        lambda: Net(lambda n, x: torch.tanh(x @ n.table) @ n.table.T[:, :3], table=torch.randn(5, 4) / 2), cross_entropy
    ),
    "class token": OddNet(
        lambda: Net(
            lambda n, x: n.head(torch.cat([n.token.expand(len(x), -1, -1), x], 1).mean(1)),
            token=torch.randn(1, 1, 5),
            head=nn.Linear(5, 3),
        ),
        cross_entropy,
        "sequences",
    ),
    "group norm": OddNet(
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.PReLU(), nn.Flatten(), nn.Linear(36, 3)),
        cross_entropy,
        "images",
    ),
    "absolute loss": OddNet(
        lambda: nn.Sequential(nn.Linear(5, 4), nn.SiLU(), nn.Linear(4, 1)),
        lambda net, b: (net(b.x)[:, 0] - b.y).abs(),
        labels="numbers",
    ),
}

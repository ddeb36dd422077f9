"""Nets: the trained networks that are measured, their data and how they are trained; torch and numpy alone.

Everything here also runs in the peers' environment, which has no upweight.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from benchmarks.encoder_nets import NEEDS as ENCODER
from benchmarks.encoder_nets import lora
from benchmarks.picture_nets import depthwise, narrow_resnet, resnet
from benchmarks.small_nets import Recurrent, adult, spoken
from torch import Tensor, nn

LENGTH, WIDTH, HEADS, BLOCKS, SYMBOLS = 64, 128, 4, 4, 64
PRETRAINING = 6000  # sequences that the language model has seen before the ones that are attributed


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(2, (HEADS, -1)).transpose(1, 2) for t in self.qkv(self.before(x)).chunk(3, dim=2))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.between(x))))


class GPT(nn.Module):
    """Blocks of causal attention, by default four over characters; 0.8 million parameters at the full width."""

    def __init__(self, width: int = WIDTH, blocks: int = BLOCKS, symbols: int = SYMBOLS) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(symbols, width), nn.Embedding(LENGTH, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, symbols)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        return self.head(self.norm(self.blocks(x)))


def softmax() -> nn.Module:
    return nn.Sequential(nn.Linear(65, 10, bias=False))


def pixels() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 10, bias=False))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))


def cnn() -> nn.Module:
    convolved = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1)
    return nn.Sequential(
        *convolved, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1568, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def class_losses(outputs: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of every example, (n,)."""
    return F.cross_entropy(outputs, y, reduction="none")


def token_losses(outputs: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of every sequence, averaged over its tokens, (n,)."""
    return F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)


@dataclass(frozen=True)
class Kind:
    """A task: the net, how it is trained, and the sizes of everything.

    `losses(net(x), y)` is the loss of every example. Every half is trained with so many seeds. No epochs: the net is
    linear and trained to its optimum. `needs`: modules that are not installed everywhere.
    """

    name: str
    title: str
    make: Callable[[], nn.Module]
    queries: int
    subsets: int
    epochs: int
    batch: int
    lr: float
    adam: bool = False
    l2: float = 0.0
    train: int = 2000
    seeds: int = 2
    needs: tuple[str, ...] = ()

    @property
    def losses(self) -> Callable[[Tensor, Tensor], Tensor]:
        return token_losses if self.name == "gpt" else class_losses


KINDS = {
    kind.name: kind
    for kind in (
        Kind("softmax", "softmax regression on digits", softmax, 397, 100, 0, 0, 0.0, l2=1e-2, train=1400),
        Kind("mnist", "softmax regression on MNIST", pixels, 200, 100, 0, 0, 0.0, l2=1e-2),
        Kind("mlp", "MLP 784-512-256-10 on MNIST", mlp, 100, 70, 10, 64, 0.03),
        Kind("cnn", "CNN (two convolutions, two layers) on MNIST", cnn, 200, 50, 10, 64, 0.05),
        Kind("spoken", "MLP 192-64-10 on spoken digits", spoken, 100, 60, 15, 32, 0.02, train=1000),
        Kind("lstm", "LSTM of 64 units on spoken digits", Recurrent, 100, 60, 10, 32, 0.01, train=1000),
        Kind("adult", "MLP 94-64-32-2 on a census table", adult, 100, 60, 10, 32, 0.02, train=1500),
        Kind("narrow", "narrow ResNet with batch norm on CIFAR-10", narrow_resnet, 100, 60, 10, 50, 0.01, train=500),
        Kind("resnet", "ResNet-20 with batch norm on CIFAR-10", resnet, 100, 40, 6, 50, 0.01, train=500),
        Kind("depthwise", "depthwise convolutions on CIFAR-10", depthwise, 100, 40, 10, 50, 0.01, train=500),
        Kind("gpt", "GPT (4 blocks, width 128) on film reviews", GPT, 32, 40, 3, 16, 3e-4, adam=True, train=256),
        Kind(
            "lora",
            "MiniLM with LoRA on film reviews",
            lora,
            50,
            40,
            2,
            10,
            2e-3,
            adam=True,
            train=200,
            seeds=1,
            needs=ENCODER,
        ),
    )
}


@dataclass(eq=False)
class Task:
    """A checkpoint, what it was trained on, and what is asked; read back from `task.npz` and `task.pt`."""

    kind: Kind
    x: Tensor
    y: Tensor
    xq: Tensor
    yq: Tensor
    net: nn.Module

    def few(self, train: int, queries: int) -> Task:
        """A small part of it, for a first call that is not timed."""
        return Task(self.kind, self.x[:train], self.y[:train], self.xq[:queries], self.yq[:queries], self.net)

    def measured(self, net: nn.Module) -> Any:
        """−loss of every query, (queries,)."""
        with torch.no_grad():
            return -self.kind.losses(net.eval()(self.xq), self.yq).double().numpy()

    @classmethod
    def load(cls, folder: Path, name: str) -> Task:
        with np.load(folder / f"{name}.npz") as archive:
            x, y, xq, yq = (torch.from_numpy(archive[part]) for part in ("x", "y", "xq", "yq"))
        net = KINDS[name].make()
        net.load_state_dict(torch.load(folder / f"{name}.pt"))
        return cls(KINDS[name], x, y, xq, yq, net.eval())


def train(kind: Kind, x: Tensor, y: Tensor, start: dict[str, Tensor] | None, seed: int, epochs: int = 0) -> nn.Module:
    """The net after its training on these examples; `start` are its first parameters, else the seed draws them."""
    torch.manual_seed(seed)
    net = kind.make().train()
    if start is not None:
        net.load_state_dict(start)
    parameters = list(net.parameters())
    optimiser: torch.optim.Optimizer = torch.optim.SGD(parameters, lr=kind.lr, momentum=0.9)
    if kind.adam:
        optimiser = torch.optim.Adam(parameters, lr=kind.lr if start else 1e-3)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs or kind.epochs):
        for where in torch.randperm(len(x), generator=order).split(kind.batch):
            optimiser.zero_grad()
            kind.losses(net(x[where]), y[where]).mean().backward()
            optimiser.step()
    return net.eval()


def images(data: Path, kind: Kind) -> tuple[Tensor, ...]:
    """The first MNIST digits, pixels in [0, 1]: train and queries, inputs and labels."""
    parts = []
    with np.load(data / "mnist.npz") as archive:
        for part, count in (("tr", kind.train), ("te", kind.queries)):
            pixels = torch.from_numpy(archive[f"x{part}"][:count] / np.float32(255)).float()
            parts += [pixels.flatten(1) if kind.name in ("mnist", "mlp") else pixels[:, None]]
            parts += [torch.from_numpy(archive[f"y{part}"][:count].astype(np.int64))]
    return tuple(parts)


def texts(data: Path, kind: Kind) -> tuple[Tensor, ...]:
    """Film reviews as sequences of characters: train and queries, then what the net is pretrained on."""
    with zipfile.ZipFile(data / "sst2.zip") as archive, archive.open("sst2_train.tsv") as file:
        lines = io.TextIOWrapper(file, encoding="utf-8").read().splitlines()[1:]
    long = [line.rsplit("\t", 1)[0].strip() for line in lines if len(line) > LENGTH + 4]
    long = list(dict.fromkeys(text[: LENGTH + 1] for text in long))
    chosen = np.random.default_rng(0).permutation(len(long))[: kind.train + kind.queries + PRETRAINING]
    codes = np.array([[min(max(ord(c) - 32, 0), 95) for c in long[i].ljust(LENGTH + 1)] for i in chosen])
    common = np.argsort(-np.bincount(codes.ravel(), minlength=96), kind="stable")[: SYMBOLS - 1]
    place = np.full(96, SYMBOLS - 1)
    place[common] = np.arange(SYMBOLS - 1)
    ids = torch.from_numpy(place[codes])
    ends = [0, kind.train, kind.train + kind.queries, len(ids)]
    return tuple(t for a, b in pairwise(ends) for t in (ids[a:b, :-1], ids[a:b, 1:]))

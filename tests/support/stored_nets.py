"""A small trained net with its data, in double precision, and stores of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import upweight as uw
from support.network_families import cross_entropy, digits, mlp

X, Y = digits()
TRAIN = uw.Examples(X[:60], Y[:60], ids=[f"t{i}" for i in range(60)])
QUERIES = uw.Examples(X[60:66], Y[60:66], ids=[f"q{i}" for i in range(6)])


def model(make: Callable[[], nn.Module] = mlp, seed: int = 0, **settings: Any) -> uw.TorchModel:
    """A net after a few steps of training."""
    torch.manual_seed(seed)
    net = make().double()
    optimiser = torch.optim.SGD(net.parameters(), 0.2)
    x, y = torch.tensor(X[:60]), torch.tensor(Y[:60])
    for _ in range(20):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    return uw.TorchModel(net, cross_entropy, **settings)


def store(folder: Path, encoding: uw.Encoding | None = None, **settings: Any) -> uw.Store:
    """A store of small files."""
    return uw.Store(folder, encoding, **{"shard_bytes": 1000, **settings})


def files(folder: Path) -> dict[str, bytes]:
    """Path in the store → bytes, of all shards."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def relative_error(values: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the largest expected number."""
    return float(np.abs(values - expected).max() / np.abs(expected).max())

"""Small nets and their trainings, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import upweight as uw
from support.network_families import cnn, cross_entropy, digits, mlp

N = 40


def train(weighted: bool = False) -> uw.Examples:
    """Forty digits 0, 1, 2; with sample weights if `weighted`."""
    x, y = digits()
    return uw.Examples(x[:N], y[:N], weights=np.linspace(0.5, 1.5, N) if weighted else None)


def queries() -> uw.Examples:
    """Seven other digits."""
    x, y = digits()
    return uw.Examples(x[N : N + 7], y[N : N + 7])


def fresh(seed: int) -> nn.Module:
    """An MLP whose initial parameters are drawn from torch's random numbers."""
    return mlp().double()


def dropping(seed: int) -> nn.Module:
    """An MLP with dropout."""
    return nn.Sequential(nn.Linear(64, 10), nn.GELU(), nn.Dropout(0.3), nn.Linear(10, 3)).double()


def convolving(seed: int) -> nn.Module:
    """A CNN."""
    return cnn().double()


def model(make: Any = fresh, train_on: uw.Examples | None = None, **settings: Any) -> uw.TorchModel:
    """Trained with these settings of `Training`, by default three passes of SGD."""
    settings = {"lr": 0.1, "epochs": 3, "batch_size": 16, **settings}
    return uw.TorchModel.trained(
        make, cross_entropy, train() if train_on is None else train_on, training=uw.Training(**settings)
    )


def by_torch(make: Any, optimiser: Any, batches: Any, weights: np.ndarray, **more: Any) -> np.ndarray:
    """The parameters after a plain training loop with an optimiser of torch, as one vector."""
    clip, schedule = more.get("clip"), more.get("schedule")
    torch.manual_seed(0)
    net = make(0)
    x, y = (torch.as_tensor(part[:N]) for part in digits())
    w = torch.as_tensor(weights)
    torch_optimiser = optimiser(net.parameters())
    scheduler = None if schedule is None else torch.optim.lr_scheduler.LambdaLR(torch_optimiser, schedule)
    for batch in batches:
        where = torch.as_tensor(np.asarray(batch))
        torch_optimiser.zero_grad()
        ((F.cross_entropy(net(x[where]), y[where], reduction="none") * w[where]).sum() / len(where)).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
        torch_optimiser.step()
        if scheduler is not None:
            scheduler.step()
    return torch.cat([p.detach().flatten() for p in net.parameters()]).numpy()

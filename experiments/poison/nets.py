"""The networks that are attacked."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def loss(net: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy of every example, (n,)."""
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def small_cnn(height: int, width: int, channels: int = 8) -> nn.Sequential:
    """Two convolutions, a hidden layer of 64 and ten outputs, for one channel."""
    c = channels
    return nn.Sequential(
        nn.Conv2d(1, c, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(c, 2 * c, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * c * (height // 4) * (width // 4), 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )

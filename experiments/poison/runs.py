"""A training that is recorded, and that can be repeated with other example weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from experiments.poison.nets import loss
from numpy.typing import NDArray
from torch import nn

import upweight as uw

CHECKPOINTS = 10


@dataclass(frozen=True)
class Run:
    """SGD with momentum .9 and a constant learning rate, on batches in random order.

    Attributes:
        initial: makes the net before training, with torch seeded.
        train: the training set.
        epochs, lr, batch, decay: of the training.
    """

    initial: Callable[[], nn.Module]
    train: uw.Examples
    epochs: int = 20
    lr: float = 0.02
    batch: int = 32
    decay: float = 5e-4

    def __call__(self, weights: NDArray[np.float64], seed: int, trajectory: uw.Trajectory | None = None) -> nn.Module:
        """A new net, trained with these example weights (n,): an example of weight 0 is left out of its batch."""
        torch.manual_seed(seed)
        net = self.initial()
        x, y, w = (torch.as_tensor(part) for part in (self.train.x, self.train.y, weights.astype(np.float32)))
        trained = [p for p in net.parameters() if p.requires_grad]
        optimiser = torch.optim.SGD(trained, lr=self.lr, momentum=0.9, weight_decay=self.decay)
        for _ in range(self.epochs):
            for batch in torch.randperm(len(x)).split(self.batch):
                optimiser.zero_grad()
                losses = F.cross_entropy(net(x[batch]), y[batch], reduction="none")
                ((losses * w[batch]).sum() / w[batch].sum().clamp(min=1.0)).backward()
                optimiser.step()
                if trajectory is not None:
                    trajectory.record(net, optimiser)
        return net.eval()

    def model(self) -> uw.TorchModel:
        """The trained net with its trajectory of ten checkpoints."""
        steps = self.epochs * -(-len(self.train) // self.batch)
        trajectory = uw.Trajectory(tempfile.mkdtemp(), every=steps // CHECKPOINTS)
        net = self(np.ones(len(self.train)), 0, trajectory)
        if steps % CHECKPOINTS:
            raise ValueError(f"expected a number of steps that {CHECKPOINTS} divides, got {steps}")
        return uw.TorchModel(net, loss, training=self, trajectory=uw.Trajectory(trajectory.folder))

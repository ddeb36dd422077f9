"""An MLP on a table: which patients made it call a benign tumour malignant?

python examples/mlp.py [report.html]
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

import upweight as uw


def examples() -> tuple[uw.Examples, uw.Examples]:
    """400 tumours to train on and 169 that the net has not seen."""
    data = load_breast_cancer()
    labels = {0: "malignant", 1: "benign"}
    whole = uw.Examples(data.data.astype(np.float32), data.target, names=data.feature_names, labels=labels)
    return whole.take(range(400)), whole.take(range(400, 569))


class Standardise(nn.Module):
    """Standardise columns inside the net, so that a report shows the original values."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", x.mean(0))
        self.register_buffer("spread", x.std(0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.centre) / self.spread


def loss(net: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy of every example."""
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def train_net(train: uw.Examples) -> nn.Module:
    """Train a net of 30 inputs, 32 hidden units and two classes."""
    torch.manual_seed(0)
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    net = nn.Sequential(Standardise(x), nn.Linear(30, 32), nn.GELU(), nn.Linear(32, 2))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    for _ in range(300):
        optimiser.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimiser.step()
    return net


def main(report: str = "mlp.html") -> None:
    train, unseen = examples()
    objective = uw.Objective("mean", l2=1e-3)  # the l2 is the optimiser's weight_decay
    model = uw.TorchModel(train_net(train), loss, objective=objective)
    hardest = unseen.take(np.argsort(model.measure(unseen))[:4])  # the highest losses
    scores = uw.Influence(curvature=uw.GaussNewton()).fit(model, train).attribute(hardest)
    for query, prediction in zip(hardest.ids.tolist(), scores.predictions.predicted, strict=True):
        print(f"tumour {query} is {hardest.label(query)}, the net predicts {prediction}; the strongest opponents:")
        for example, score in scores.opponents(query, k=3):
            print(f"   #{example} ({train.label(example)})  {score:+.4f}")
    print("wrote", uw.write_report(report, scores, train, hardest))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A CNN on pictures: which training digits decided its prediction for a new one, and which labels are wrong?

python examples/cnn.py [report.html]
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.datasets import load_digits
from torch import Tensor, nn

import upweight as uw


def examples() -> tuple[uw.Examples, uw.Examples]:
    """1,200 scanned digits (8 × 8) to train on, 597 that the net has not seen; every 40th training label is wrong."""
    data = load_digits()
    pictures = (data.images / 16).astype(np.float32)[:, None]
    y = data.target.copy()
    y[:1200:40] = (y[:1200:40] + 1) % 10
    whole = uw.Examples(pictures, y, shown=data.images)
    return whole.take(range(1200)), whole.take(range(1200, 1797))


def loss(net: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy of every example."""
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def train_net(train: uw.Examples) -> nn.Module:
    """Train two convolutions and a linear layer for 20 epochs."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 16, 3, stride=2), nn.GELU()),
        *(nn.Flatten(), nn.Linear(144, 10)),
    )
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    for _ in range(20):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            F.cross_entropy(net(x[batch]), y[batch]).backward()
            optimiser.step()
    return net


def main(report: str = "cnn.html") -> None:
    train, unseen = examples()
    net = train_net(train)
    model = uw.TorchModel(net, loss)
    fitted = uw.Influence(curvature=uw.EmpiricalFisher()).fit(model, train)

    mislabeled = set(range(0, 1200, 40))
    suspects = fitted.self_influence().proponents("self", k=len(mislabeled))
    count = sum(suspect.id in mislabeled for suspect in suspects)
    print(f"of {len(mislabeled)} wrong labels, {count} are among the {len(mislabeled)} examples")
    print("with the largest self-influence")

    queries = unseen.take(np.argsort(model.measure(unseen))[:6])
    scores = fitted.attribute(queries)
    for query, prediction in zip(queries.ids.tolist(), scores.predictions.predicted, strict=True):
        helped = ", ".join(f"#{a.id} (a {train.label(a.id)})" for a in scores.proponents(query, k=3))
        harmed = ", ".join(f"#{a.id} (a {train.label(a.id)})" for a in scores.opponents(query, k=3))
        print(f"#{query} is a {queries.label(query)}, read as {prediction}. Helped: {helped}. Harmed: {harmed}")
    print("wrote", uw.write_report(report, scores, train, queries))


if __name__ == "__main__":
    main(*sys.argv[1:])

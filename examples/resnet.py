"""A ResNet with batch norm and augmentation: from a plain training script to a report that retraining has verified.

python examples/resnet.py [report.html]

The lines that were added to the training script end in "# added". With UPWEIGHT_DATA=DIR (a folder with
cifar10-subset.zip) the pictures are of CIFAR-10, else of coloured shapes that are drawn here.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import upweight as uw  # added

SIZE, TRAIN, UNSEEN = 16, 400, 100


@dataclass
class Pictures:
    """A batch."""

    x: Tensor
    y: Tensor


class Block(nn.Module):
    """Two convolutions with batch norms around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.norms[1](self.second(F.gelu(self.norms[0](self.first(x))))) + self.shortcut(x))


def augment(batch: Any, generator: torch.Generator = torch.default_generator) -> Any:
    """Half of the pictures, mirrored."""
    mirrored = torch.rand(len(batch.x), generator=generator) < 0.5
    return replace(batch, x=torch.where(mirrored[:, None, None, None], batch.x.flip(3), batch.x))


def loss(net: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy of every example."""
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def train_net(data: TensorDataset, folder: str) -> nn.Module:
    """The training script: SGD with a learning rate that falls to 0, over shuffled and augmented pictures."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.GELU()),
        *(Block(6, 6, 1), Block(6, 12, 2), Block(12, 24, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)),
    )
    loader, epochs = DataLoader(data, batch_size=50, shuffle=True), 8
    optimiser = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * len(loader))
    trajectory = uw.Trajectory(folder, every=16)  # added
    trajectory.save(net, optimiser)  # added
    for _ in range(epochs):
        for ids, (x, y) in uw.indexed(loader):  # added: before, it was `for x, y in loader`
            trajectory.start_step()  # added
            batch = augment(Pictures(x, y))
            optimiser.zero_grad()
            loss(net, batch).mean().backward()
            optimiser.step()
            trajectory.record(net, optimiser, batch=ids)  # added
            scheduler.step()
    return net.eval()


def main(report: str = "resnet.html") -> None:
    x, y, shown, names = pictures()
    data = TensorDataset(x[:TRAIN], y[:TRAIN])
    with tempfile.TemporaryDirectory() as folder:
        net = train_net(data, folder)
        correct = float((net(x[TRAIN:]).argmax(1) == y[TRAIN:]).float().mean())
        print(f"{correct:.0%} of {UNSEEN} unseen pictures are classified correctly")

        examples = uw.Examples(x.numpy(), y.numpy(), shown=shown, labels=names)  # added
        train, queries = examples.take(range(TRAIN)), examples.take(range(TRAIN, TRAIN + 4))  # added
        training = uw.Trajectory(folder, augment=augment).training(train)  # added
        model = uw.TorchModel(net, loss, training=training)  # added
        scores = uw.Metagradient(removals=4).fit(model, train).attribute(queries)  # added
        check = uw.verify(model, train, queries, scores, removals=6)  # added
        uw.write_report(report, scores, train, queries, check)  # added
    print(f"agreement of the scores with four retrainings: {scores.diagnostics['agreement']:.2f}")
    print(check)
    print("wrote", report)


def pictures() -> tuple[Tensor, Tensor, np.ndarray, dict[int, str]]:
    """Pictures (n, 3, 16, 16), their classes, the pictures as they look, and the names of the classes."""
    folder = os.environ.get("UPWEIGHT_DATA")
    return photographs(Path(folder)) if folder else shapes()


def photographs(folder: Path) -> tuple[Tensor, Tensor, np.ndarray, dict[int, str]]:
    """The first pictures of every class of CIFAR-10, in a random order."""
    with zipfile.ZipFile(folder / "cifar10-subset.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("train/") and name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in names})
        chosen = [
            name for c in classes for name in [n for n in names if n.split("/")[1] == c][: (TRAIN + UNSEEN) // 10]
        ]
        read = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in chosen]
    order = np.random.default_rng(0).permutation(len(chosen))
    small = np.stack([np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BOX)) for picture in read])[order]
    labels = np.array([classes.index(name.split("/")[1]) for name in chosen])[order]
    return as_tensor(small), torch.from_numpy(labels), small, dict(enumerate(classes))


def shapes() -> tuple[Tensor, Tensor, np.ndarray, dict[int, str]]:
    """Ten kinds of bright shapes: discs and bars in five colours, at random places on noise."""
    rng = np.random.default_rng(0)
    count, grid = TRAIN + UNSEEN, np.arange(SIZE)
    labels = rng.integers(0, 10, count)
    colours = np.array([[220, 60, 60], [60, 200, 60], [70, 90, 230], [220, 210, 60], [200, 80, 210]])
    drawn = rng.normal(90, 45, (count, SIZE, SIZE, 3))
    for picture, label in zip(drawn, labels, strict=True):
        row, column = rng.integers(4, SIZE - 4, 2)
        disc = (grid[:, None] - row) ** 2 + (grid - column) ** 2 < 10
        inside = disc if label < 5 else (np.abs(grid[:, None] - row) < 2) & (np.abs(grid - column) < 6)
        picture[inside] = 0.4 * picture[inside] + 0.6 * colours[label % 5]
    small = drawn.clip(0, 255).astype(np.uint8)
    names = [f"{colour} {kind}" for kind in ("disc", "bar") for colour in ("red", "green", "blue", "yellow", "purple")]
    return as_tensor(small), torch.from_numpy(labels), small, dict(enumerate(names))


def as_tensor(small: np.ndarray) -> Tensor:
    """Pictures (n, 16, 16, 3) as floats (n, 3, 16, 16) with mean 0 and deviation 1, roughly."""
    return torch.from_numpy((small.astype(np.float32).transpose(0, 3, 1, 2) - 120.0) / 64.0)


if __name__ == "__main__":
    main(*sys.argv[1:])

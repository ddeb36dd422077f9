"""D3, Yeh et al. (2018): a net's predictions as sums over training pictures, and the repair of flipped labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.examples import repairs
from experiments.koh_liang import data
from experiments.results import Row
from numpy.typing import NDArray
from torch import nn

import upweight as uw

Array = NDArray[Any]
KINDS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PAIR = ("automobile", "horse")
PER_CLASS = 1000  # training pictures of the two classes whose labels are flipped
L2 = 0.006  # on one logit per class, twice the paper's λ
SEEDS = 10
CHECKED = (0.1, 0.2, 0.3, 0.4, 0.5)
AT = 0.4  # share of the labels that are checked in the row beside the paper's
PAPER = {"representer": (0.649, 0.44), "influence": (0.639, 0.44), "random": (0.623, 0.40)}  # accuracy, flips fixed
PAPER_FIT = {"train": (0.99979, 0.0009), "test": (0.99685, 0.0042)}  # Pearson's correlation, mean difference
FAITHFUL = 0.99


class Net(nn.Module):
    """A small convolutional net with 256 features before its last layer."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128)
        parts: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            parts += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*parts, nn.Flatten(), nn.Linear(128 * 16, 256), nn.ReLU())
        self.head = nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of pictures (n, 3, 32, 32)."""
        return self.head(self.features(x))


def loss(net: nn.Module, batch: Any) -> torch.Tensor:
    """Cross-entropy of every picture."""
    return nn.functional.cross_entropy(net(batch.x), batch.y.long(), reduction="none")


def pictures(folder: Path, kinds: tuple[str, ...], per_class: tuple[int, int]) -> list[tuple[Array, Array]]:
    """[(training pictures (n, 3, 32, 32) in [−1, 1], labels), (test pictures, labels)]."""
    parts = data.two_kinds(data.CIFAR, folder, kinds, 32, per_class)
    return [((x.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32), y) for x, y in parts]


def reconstruct(folder: Path, fast: bool) -> tuple[list[Row], dict[str, Any]]:
    """The head's probabilities beside those of the untouched net, on pictures of its training and on others."""
    (x, y), (test_x, test_y) = pictures(folder, KINDS, (200, 50) if fast else (2000, 500))
    train, test = uw.Examples(x, y), uw.Examples(test_x, test_y)
    torch.manual_seed(0)
    training = uw.Training(lr=0.05, momentum=0.9, epochs=3 if fast else 15, batch_size=100, schedule="cosine")
    model = uw.TorchModel.trained(Net(), loss, train, training=training)
    fitted = uw.RepresenterPoints(targets="predictions", l2="auto").fit(model, train)
    rows, numbers = [], dict(fitted.diagnostics)
    for name, examples in (("train", train), ("test", test)):
        own = model.predict(examples).probabilities
        rebuilt = fitted.head.probabilities(model.embed(examples))
        pearson = float(np.corrcoef(own.ravel(), rebuilt.ravel())[0, 1])
        difference = float(np.abs(own - rebuilt).mean())
        accuracy = float(np.mean(own.argmax(axis=1) == examples.y))
        numbers[name] = (pearson, difference, accuracy)
        where = {"train": "training pictures", "test": "held-out pictures"}[name]
        rows += [
            Row(
                f"Pearson of reconstructed and predicted probabilities, {where}",
                f"{PAPER_FIT[name][0]:.5f}",
                f"{pearson:.5f}",
                pearson > FAITHFUL,
            ),
            Row(f"mean absolute difference, {where}", f"{PAPER_FIT[name][1]:.4f}", f"{difference:.4f}"),
            Row(f"accuracy of the net, {where}", "–", f"{accuracy:.3f}"),
        ]
    numbers["warnings"] = list(numbers["warnings"])
    return rows, numbers


def suspicions(x: Array, y: Array, estimator: Any, seed: int) -> dict[str, Array]:
    """How wrong each label looks, by each method; the highest is checked first."""
    train = uw.Examples(x, y)
    model = uw.explainable(estimator, train)
    return {
        "representer": np.abs(uw.RepresenterPoints().fit(model, train).label_alpha()),
        "influence": uw.Influence(correction=None).fit(model, train).self_influence().values[0],
        "random": np.random.default_rng(seed).random(len(y)),
        "loss": -model.measure(train),
        "nearest neighbours": repairs.neighbours_of_other_labels(x, y),
    }


def debug(folder: Path, fast: bool) -> dict[str, Array]:
    """Method → (seeds, 2, checked): test accuracy and the share of flips fixed."""
    count = 100 if fast else PER_CLASS
    (x, y), (test_x, test_y) = pictures(folder, PAIR, (count, 500))
    x, test_x = (part.reshape(len(part), -1).astype(np.float64) for part in (x, test_x))
    curves: dict[str, list[Array]] = {}
    for seed in range(2 if fast else SEEDS):
        wrong = repairs.flipped(y, 0.4, seed)
        machine = repairs.softmax_regression(x, wrong, L2)
        for name, suspicion in suspicions(x, wrong, machine, seed).items():
            curve = repairs.curve(x, y, wrong, suspicion, CHECKED, L2, (test_x, test_y))
            curves.setdefault(name, []).append(np.hstack([[[machine.score(test_x, test_y)], [0.0]], curve]))
        print(seed, {name: np.round(c[-1][:, 4], 3).tolist() for name, c in curves.items()}, flush=True)
    curves["clean"] = [np.array([[repairs.softmax_regression(x, y, L2).score(test_x, test_y)], [1.0]])]
    return {name: np.array(values) for name, values in curves.items()}

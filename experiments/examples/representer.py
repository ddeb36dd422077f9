"""Yeh et al. (2018): a net's predictions as sums over training digits, and the repair of flipped labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.examples import repairs
from experiments.koh_liang import data
from experiments.koh_liang.pictures import panels, save
from experiments.results import Result, Row
from numpy.typing import NDArray
from torch import nn

import upweight as uw

Array = NDArray[Any]
TRAINED = 20_000  # digits on which the net is trained
PAIR = ("automobile", "horse")
PER_CLASS = 1000  # training pictures of the two classes whose labels are flipped
L2 = 0.006  # on one logit per class, twice the paper's λ
SEEDS = 5
CHECKED = (0.2, 0.4)
AT = 0.4  # share of the labels that are checked in the row beside the paper's
PAPER = {"representer": (0.649, 0.44), "influence": (0.639, 0.44), "random": (0.623, 0.40)}  # accuracy, flips fixed
PAPER_FIT = {"train": (0.99979, 0.0009), "test": (0.99685, 0.0042)}  # Pearson's correlation, mean difference
FAITHFUL = 0.99
TITLE = "Representer points of a net, and labels repaired"
NOTES = (
    "For a logistic regression |α| is in proportion to 1 − p(label), so its order is that of the loss.",
    "Accuracies are .05 to .06 above the paper's in any order, also at random: it is another part of CIFAR-10.",
    "A net that is unsure is harder to give again. A small convolutional net on 20,000 pictures of CIFAR-10, with an "
    "accuracy of .71 on held-out pictures (1.00 on its own), gave .9977 on its training pictures and .9868 on held-out "
    "ones, with l2 .006: that is less than .99, and refused if held-out pictures are passed.",
)


def network() -> nn.Module:
    """A small net with 256 features before its last layer."""
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def loss(net: nn.Module, batch: Any) -> torch.Tensor:
    """Cross-entropy of every digit."""
    return nn.functional.cross_entropy(net(batch.x), batch.y.long(), reduction="none")


def reconstruct(folder: Path, fast: bool) -> tuple[list[Row], dict[str, Any]]:
    """The head's probabilities beside those of the untouched net, on digits of its training and on others.

    The head is chosen on half of the held-out digits; numbers are of the other half.
    """
    (x, y), (test_x, test_y) = data.mnist(folder)
    count, held_out = (1000, 400) if fast else (TRAINED, 10_000)
    train = uw.Examples(x[:count].astype(np.float32), y[:count])
    others = uw.Examples(test_x[:held_out].astype(np.float32), test_y[:held_out])
    chosen, test = others.take(range(0, held_out, 2)), others.take(range(1, held_out, 2))
    torch.manual_seed(0)
    training = uw.Training(lr=0.1, momentum=0.9, epochs=3 if fast else 10, batch_size=100, schedule="cosine")
    model = uw.TorchModel.trained(network(), loss, train, training=training)
    fitted = uw.RepresenterPoints(targets="predictions").fit(model, train, held_out=chosen)
    numbers, rows = dict(fitted.diagnostics), []
    for name, examples, where in (("train", train, "training digits"), ("test", test, "held-out digits")):
        compared = fitted.compare(examples)
        accuracy = float(np.mean(np.array(model.predict(examples).predicted) == examples.y))
        numbers[name] = {**compared, "accuracy": accuracy}
        pearson, difference = PAPER_FIT[name]
        faithful = compared["faithful"]
        rows += [
            Row(f"Pearson of the head's and the net's probabilities, {where}", f"{pearson:.5f}", f"{faithful:.5f}",
                faithful > FAITHFUL),
            Row(f"mean absolute difference, {where}", f"{difference:.4f}", f"{compared['change']:.4f}"),
            Row(f"accuracy of the net, {where}", "–", f"{accuracy:.3f}"),
        ]  # fmt: skip
    return rows[3:] + rows[:3], numbers


def pair(folder: Path, per_class: tuple[int, int]) -> list[tuple[Array, Array]]:
    """[(training pictures (n, 3072) with values in [−1, 1], labels), (test pictures, labels)] of two classes."""
    parts = data.two_kinds(data.CIFAR, folder, PAIR, 32, per_class)
    return [((x.reshape(len(x), -1) / 127.5 - 1), y) for x, y in parts]


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
    (x, y), (test_x, test_y) = pair(folder, (count, 500))
    curves: dict[str, list[Array]] = {}
    for seed in range(2 if fast else SEEDS):
        wrong = repairs.flipped(y, 0.4, seed)
        machine = repairs.softmax_regression(x, wrong, L2)
        for name, suspicion in suspicions(x, wrong, machine, seed).items():
            curve = repairs.curve(x, y, wrong, suspicion, CHECKED, L2, (test_x, test_y))
            curves.setdefault(name, []).append(np.hstack([[[machine.score(test_x, test_y)], [0.0]], curve]))
        print(seed, {name: np.round(c[-1][:, -1], 3).tolist() for name, c in curves.items()}, flush=True)
    curves["clean"] = [np.array([[repairs.softmax_regression(x, y, L2).score(test_x, test_y)], [1.0]])]
    return {name: np.array(values) for name, values in curves.items()}


def reproduce(folder: Path, fast: bool, path: Path) -> Result:
    """The reconstruction of a net, and the repair of labels."""
    rows, numbers = reconstruct(folder, fast)
    curves = debug(folder, fast)
    mean = {name: values.mean(axis=0) for name, values in curves.items()}
    at = 1 + CHECKED.index(AT)
    for which, what in ((0, "accuracy"), (1, "share of flips fixed")):
        for name, values in mean.items():
            if name == "clean":
                continue
            paper = PAPER[name][which] if name in PAPER else None
            rows.append(Row(f"{AT:.0%} checked by {name}: {what}", "–" if paper is None else f"{paper:g}",
                            f"{values[which, at]:.3f}"))  # fmt: skip
    accuracy = {name: float(values[0, at]) for name, values in mean.items() if name != "clean"}
    better = accuracy["representer"] > accuracy["random"] and accuracy["influence"] > accuracy["random"]
    rows += [
        Row("representer and influence repair better than chance", "yes", "yes" if better else "no", better),
        Row("representer and influence: difference in accuracy", ".010",
            f"{accuracy['representer'] - accuracy['influence']:+.3f}"),
        Row("accuracy with the flips; with clean labels", "–",
            f"{mean['representer'][0, 0]:.3f}; {mean['clean'][0, 0]:.3f}"),
    ]  # fmt: skip
    draw(path, mean)
    return Result(
        title=TITLE,
        claim="A head on the features of a net predicts what the net predicts, so its logits are sums over training "
        "examples; checking the labels with the largest |α| repairs a training set faster than checking at random.",
        rows=rows,
        settings=f"Reconstruction: MNIST, {TRAINED:,} training digits, a net with 256 features before its last layer, "
        "l2 chosen on 5,000 held-out digits, compared on 5,000 others (paper: CIFAR-10, VGG-16). Labels: CIFAR-10, "
        f"automobiles and horses, {2 * PER_CLASS:,} training and 1,000 test pictures, 40 % of the labels flipped, "
        f"logistic regression on the pixels with the paper's l2, {SEEDS} seeds.",
        notes=NOTES,
        numbers={"reconstruction": numbers, **{name: values.tolist() for name, values in curves.items()}},
    )


def draw(path: Path, mean: dict[str, Array]) -> None:
    """Test accuracy and the share of flips fixed, over the share of labels checked."""
    figure, axes = panels(2, size=(4.2, 3.2))
    shares = [0.0, *CHECKED]
    for which, (ax, what) in enumerate(zip(axes, ("test accuracy", "share of flips fixed"), strict=True)):
        for name, values in mean.items():
            if name != "clean":
                ax.plot(shares, values[which], "o-", markersize=3, label=name)
            if name in PAPER:
                ax.plot(AT, PAPER[name][which], "kx", markersize=5)
        ax.set(xlabel="share of the labels checked", ylabel=what)
    axes[0].plot([], [], "kx", label="the paper's")
    axes[0].legend(fontsize=6)
    save(figure, path)

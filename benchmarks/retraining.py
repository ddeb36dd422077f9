"""Retraining: the cost of one of many stacked models, the time of a verification, and the coverage of its intervals.

python -m benchmarks --only retraining
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from benchmarks.results import Section, Table, verdict, versions
from benchmarks.stopwatch import ratio, time_in_turn
from sklearn.datasets import load_digits, make_classification
from sklearn.linear_model import LogisticRegression
from torch import nn

import upweight as uw
from upweight.evaluate.removals import random_groups
from upweight.evaluate.verification import Check

TIMES = 10.0
TRUTH, VERIFY = 180.0, 120.0  # seconds on two cores
BAND = 0.05  # allowed difference of the coverage from the promised level
CORES = 2
HALF = 220  # removals of each kind with which intervals are compared


def main() -> None:
    tables = [together(), truth(), verification(), coverage()]
    numbers = versions(["numpy", "scikit-learn", "torch", "upweight"])
    Section("retraining", "Retraining", "python -m benchmarks --only retraining", tables, numbers).keep()


def mlp(*sizes: int) -> Callable[[int], nn.Module]:
    def fresh(seed: int) -> nn.Module:
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers[:-1])

    return fresh


def loss(net: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def digits(small: bool = False) -> uw.Examples:
    """1,000 digits of 8 × 8 pixels, or of 4 × 4."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    return uw.Examples((x.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16) if small else x)[:1000], y[:1000])


def blobs(n: int, width: int = 784) -> uw.Examples:
    """Ten classes in as many features as MNIST has."""
    x, y = make_classification(
        n, width, n_informative=40, n_redundant=0, n_classes=10, class_sep=2.0, flip_y=0.05, random_state=0
    )
    return uw.Examples((x / x.std()).astype(np.float32), y)


def together() -> Table:
    """Stacked training compared with a plain training loop for each model alone."""
    table = Table(
        "Small nets retrained on random halves, stacked, compared with a plain torch loop for each",
        f"at least {TIMES:g} times cheaper per model up to 20,000 parameters",
        ["net", "parameters", "batch", "optimiser", "models at once", "plain loop, ms a model", "stacked", "ratio", ""],
    )
    cases = [
        ((16, 31, 10), 50, "sgd"),
        ((16, 31, 10), 50, "adam"),
        ((64, 128, 64, 10), 16, "sgd"),
        ((64, 128, 64, 10), 50, "sgd"),
    ]
    for sizes, batch, optimiser in cases:
        table.add("-".join(map(str, sizes)), *one_case(sizes, batch, optimiser))
    table.notes.append(
        "1,000 digits, 30 epochs; processor seconds, with the variants in turn; medians over five rounds, after a "
        "first one."
    )
    table.notes.append(
        "The larger net's products alone take about 30 µs a step at a batch of 50, its plain loop about 450; the "
        "limit is memory: the copies of one stack fill the processor's cache."
    )
    return table


def one_case(sizes: tuple[int, ...], batch: int, optimiser: str, epochs: int = 30) -> list[Any]:
    train = digits(small=sizes[0] == 16)
    settings: dict[str, Any] = (
        {"momentum": 0.9, "weight_decay": 1e-3, "lr": 0.05} if optimiser == "sgd" else {"lr": 1e-3}
    )
    training = uw.Training(optimiser=optimiser, epochs=epochs, batch_size=batch, **settings)  # type: ignore[arg-type]
    model = uw.TorchModel.trained(mlp(*sizes), loss, train, training=training)
    copies = model.stack(train).size
    weights = (np.random.default_rng(0).random((copies, len(train))) < 0.5).astype(float)
    x, y = torch.as_tensor(train.x), torch.as_tensor(train.y)

    def plain() -> None:
        torch.manual_seed(0)
        net, w = mlp(*sizes)(0), torch.as_tensor(weights[0], dtype=torch.float32)
        optimisers: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
        steps = optimisers[optimiser](net.parameters(), **settings)
        for _ in range(epochs):
            for where in torch.randperm(len(x)).split(batch):
                steps.zero_grad()
                (F.cross_entropy(net(x[where]), y[where], reduction="none") * w[where]).mean().backward()
                steps.step()

    def stacked() -> None:
        model.retrain_many(train, weights, [0] * copies)

    stacked()
    timings = time_in_turn({"plain": plain, "stacked": stacked}, 5)
    alone, each = timings["plain"].typical[0] * 1e3, timings["stacked"].typical[0] * 1e3 / copies
    times = ratio(timings["plain"], timings["stacked"]) * copies
    size = sum(p.numel() for p in model.network.net.parameters())
    return [f"{size:,}", batch, optimiser, copies, alone, each, f"{times:.1f}", verdict(times >= TIMES)]


def truth() -> Table:
    """A net whose steps are large enough to keep a processor busy."""
    train = blobs(2000)
    training = uw.Training(lr=0.05, momentum=0.9, epochs=8, batch_size=100)
    model = uw.TorchModel.trained(mlp(784, 512, 256, 10), loss, train, training=training)
    weights = (np.random.default_rng(0).random((100, len(train))) < 0.5).astype(float)
    size = sum(p.numel() for p in model.network.net.parameters())
    cpu, wall = timed(lambda: uw.retrain(model, train, weights, retraining=uw.Retraining(processes=1)))
    table = Table(
        f"100 trainings of a net of {size:,} parameters on 2,000 examples (8 epochs of 20 steps)",
        f"{TRUTH / 60:g} minutes on {CORES} cores, so {TRUTH * CORES:g} processor seconds",
        ["models at once", "CPU s", "wall s, one process", "verdict"],
    )
    table.add(model.stack(train).size, cpu, wall, verdict(cpu <= TRUTH * CORES))
    table.notes.append(f"Not stacked: {model.stack(train).why}.")
    return table


def verification() -> Table:
    """The time of a verification from the scores to the check, with all its retrainings."""
    whole = blobs(5100)
    train, queries = whole.take(np.arange(5000)), whole.take(np.arange(5000, 5100))
    training = uw.Training(lr=0.05, momentum=0.9, epochs=10, batch_size=64)
    model = uw.TorchModel.trained(mlp(784, 128, 10), loss, train, training=training)
    scores = uw.Influence(curvature=uw.EKFAC()).fit(model, train).attribute(queries)
    checks: list[Any] = []
    cpu, wall = timed(
        lambda: checks.append(
            uw.verify(model, train, queries, scores, removals=32, retraining=uw.Retraining(processes=1))
        )
    )
    size = sum(p.numel() for p in model.network.net.parameters())
    table = Table(
        f"`uw.verify` with 32 removals: a net of {size:,} parameters, 5,000 examples, 10 epochs; 100 queries",
        f"{VERIFY / 60:g} minutes on {CORES} cores, so {VERIFY * CORES:g} processor seconds",
        ["trainings", "CPU s", "wall s, one process", "verdict"],
    )
    table.add(checks[0].diagnostics["trainings"], cpu, wall, verdict(cpu <= VERIFY * CORES))
    return table


def coverage() -> Table:
    """Intervals from a few removals, compared with many others."""
    table = Table(
        "Intervals from 40 removals, on 400 others of the same sizes",
        f"the share of effects inside is within {BAND * 100:g} points of the promised level",
        ["model", "method", "promised", "inside, mean of 20 draws", "lowest … highest", "verdict"],
    )
    x, y = load_digits(return_X_y=True)
    whole = uw.Examples((x / 16).astype(np.float32), y)
    train, queries = whole.take(np.arange(600)), whole.take(np.arange(600, 640))
    linear = uw.explainable(LogisticRegression(tol=1e-8, max_iter=1000).fit(train.x, train.y), train)
    training = uw.Training(lr=0.1, momentum=0.9, weight_decay=1e-3, epochs=8, batch_size=50)
    net = uw.TorchModel.trained(mlp(64, 24, 10), loss, train, training=training)
    cases = [
        ("softmax regression", "Influence", linear, uw.Influence()),
        ("softmax regression", "Influence, not corrected", linear, uw.Influence(correction=None)),
        ("MLP 64-24-10", "Influence, EK-FAC", net, uw.Influence(curvature=uw.EKFAC())),
    ]
    singles = uw.singles(train, np.random.default_rng(0).permutation(train.ids)[:HALF].tolist())
    drawn = [*singles, *random_groups(train, HALF, seed=0)]
    for name, method_name, model, method in cases:
        scores = method.fit(model, train).attribute(queries)
        truth = uw.retrain_truth(model, train, queries, drawn, retraining=uw.Retraining(processes=1))
        for level in (0.8, 0.9):
            rates = [covered(scores, truth, level, np.random.default_rng(draw)) for draw in range(20)]
            promised, rate = min(rates)[0], float(np.mean([inside for _, inside in rates]))
            spread = f"{min(inside for _, inside in rates):.1%} … {max(inside for _, inside in rates):.1%}"
            met = verdict(abs(rate - promised) <= BAND)
            table.add(name, method_name, f"{promised:.0%}", f"{rate:.1%}", spread, met)
    table.notes.append("600 digits, 40 queries; half single examples, half random groups of 1, 5 and 10 %.")
    return table


def covered(scores: uw.Scores, truth: uw.Truth, level: float, rng: np.random.Generator) -> tuple[float, float]:
    """(promised, share inside) of intervals from 20 single examples and 20 groups, on all other removals."""
    verified = np.concatenate([rng.choice(HALF, 20, replace=False), HALF + rng.choice(HALF, 20, replace=False)])
    few, others = truth.take(verified), truth.take(np.setdiff1d(np.arange(2 * HALF), verified))
    check = Check(few.predicted(scores), few.actual, few.query_ids, few.removals, scores, {}, few)
    coverage = check.coverage(others, level=level)
    return coverage.promised, coverage.rate


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    main()

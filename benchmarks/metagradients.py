"""Metagradients: what does a derivative through the whole training say of large removals, and at what cost?

python -m benchmarks.metagradients --data DIR [--regimes calm hard] [--queries 16] [--subsets 50]

The truth is the same run with the same seed, examples of weight 0 contributing nothing (fixed denominator).
It is kept in the system's temporary folder.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.results import Section, Table, verdict, versions
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn

import upweight as uw

Array = NDArray[np.float64]
N = 2000
REGIMES = {"calm": {"lr": 0.01, "weight_decay": 1e-3}, "hard": {"lr": 0.05, "weight_decay": 1e-4}}
GOALS = {("calm", 0.1): 0.97, ("calm", 0.5): 0.95, ("hard", 0.5): 0.80}
ROUGH = 4  # training sets that are averaged over in the hard regime
FOLDER = Path(tempfile.gettempdir()) / "upweight-benchmarks" / "metagradients"


@dataclass(frozen=True)
class Task:
    """A model that can be replayed, and its queries."""

    name: str
    model: uw.TorchModel
    train: uw.Examples
    queries: uw.Examples


def fresh(seed: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 512), nn.GELU(), nn.Linear(512, 256), nn.GELU(), nn.Linear(256, 10)
    )  # 0.54 million parameters


def loss(net: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")


def margin(net: nn.Module, batch: Any) -> Tensor:
    """Log odds of the label."""
    outputs = net(batch.x)
    others = outputs.scatter(1, batch.y[:, None], -torch.inf)
    return outputs.gather(1, batch.y[:, None])[:, 0] - others.logsumexp(dim=1)


def digits(data: Path, queries: int) -> tuple[uw.Examples, uw.Examples]:
    rng = np.random.default_rng(0)
    with np.load(data / "mnist.npz") as mnist:
        some, asked = (
            rng.choice(len(mnist["xtr"]), N, replace=False),
            rng.choice(len(mnist["xte"]), queries, replace=False),
        )
        x, y, xq, yq = mnist["xtr"][some], mnist["ytr"][some], mnist["xte"][asked], mnist["yte"][asked]

    def scaled(pixels: Any) -> Any:
        return ((pixels.reshape(len(pixels), -1) / 255 - 0.1307) / 0.3081).astype(np.float32)

    return uw.Examples(scaled(x), y.astype(np.int64)), uw.Examples(scaled(xq), yq.astype(np.int64))


def removed(share: float, subsets: int) -> Array:
    """Weights (subsets, n) of random training sets without this share."""
    rng = np.random.default_rng(7)
    weights = np.ones((subsets, N))
    for row in weights:
        row[rng.choice(N, round(share * N), replace=False)] = 0.0
    return weights


def truth(task: Task, weights: Array, seed: int = 0) -> Array:
    """Measurements (m, subsets) after training with these weights; trained once, then read."""
    path = (
        FOLDER / f"{task.name}-{len(task.queries)}-{weights.shape[0]}-{round(float(1 - weights.mean()), 3)}-{seed}.npy"
    )
    if not path.exists():
        found = np.stack([task.model.retrain(task.train, row, seed).measure(task.queries) for row in weights], axis=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, found)
    return np.asarray(np.load(path))


def agreement(predicted: Array, actual: Array) -> tuple[float, float]:
    """(LDS, slope of actual on predicted within queries)."""
    lds = float(np.mean([spearmanr(p, a).statistic for p, a in zip(predicted, actual, strict=True)]))
    p, a = predicted - predicted.mean(axis=1, keepdims=True), actual - actual.mean(axis=1, keepdims=True)
    return lds, float((p * a).sum() / (p**2).sum())


def contenders(regime: str, share: float) -> dict[str, uw.Metagradient]:
    """Recipes, without the gate: this is the gate."""
    ways = {
        "at the full set": uw.Metagradient(at="full", gate=0),
        "at the centre": uw.Metagradient(keep=1 - share, gate=0),
    }
    if regime == "hard":
        ways[f"mean of {ROUGH} training sets"] = uw.Metagradient(keep=1 - share, samples=ROUGH, gate=0)
    return ways


def measured(task: Task, regime: str, subsets: int, table: Table) -> None:
    start = time.process_time()
    task.model.retrain(task.train, np.ones(N))
    once = time.process_time() - start
    done: dict[str, tuple[Array, float]] = {}
    for share in (0.1, 0.5):
        weights = removed(share, subsets)
        actual = truth(task, weights)
        other = truth(task, weights, seed=1)
        ceiling = agreement(other, actual)[0]
        for name, recipe in contenders(regime, share).items():
            key = name if recipe.at == "full" else f"{name} {share}"
            if key not in done:
                start = time.process_time()
                scores = recipe.fit(task.model, task.train).attribute(task.queries).values
                done[key] = scores, (time.process_time() - start) / once
            lds, slope = agreement(-done[key][0] @ (1 - weights).T, actual)
            goal = GOALS.get((regime, share))
            ours = name != "at the full set" and goal is not None
            table.add(
                task.name, f"{share:.0%}", name, round(lds, 3), round(slope, 2), round(ceiling, 3),
                f"{done[key][1]:.0f}", verdict(lds >= goal) if ours else "",
            )  # fmt: skip
            print(table.rows[-1], flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--regimes", nargs="*", choices=list(REGIMES), default=list(REGIMES))
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--subsets", type=int, default=50)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    m = chosen.queries
    table = Table(
        f"0.54M-parameter GELU net, {N:,} digits, 160 steps of 100, SGD with momentum .9; margin of {m} queries",
        f"LDS .97 at 10 % and .95 at 50 % in the calm regime, .80 at 50 % in the hard one; {2 * m + 1} trainings' work",
        [
            "regime",
            "removed",
            "derivative",
            "LDS",
            "slope",
            "another seed's retraining",
            "cost in trainings",
            "verdict",
        ],
        notes=[
            f"Truth: {chosen.subsets} random removals, retrained with the same seed, order and start.",
            "LDS: mean over queries of the Spearman correlation between predicted and actual measurements.",
        ],
    )
    train, queries = digits(chosen.data, m)
    for regime in chosen.regimes:
        make: Callable[..., uw.Training] = uw.Training
        training = make(epochs=8, batch_size=100, momentum=0.9, **REGIMES[regime])
        model = uw.TorchModel.trained(fresh, loss, train, margin, training=training)
        measured(Task(regime, model, train, queries), regime, chosen.subsets, table)
    command = "python -m benchmarks.metagradients --data DIR"
    Section("metagradients", "Through the training itself", command, [table], versions(["torch", "upweight"])).keep()


if __name__ == "__main__":
    main()

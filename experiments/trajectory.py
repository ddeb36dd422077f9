"""Methods over checkpoints against true retraining with the same seed: LDS on the digits MLP.

    python experiments/trajectory.py [--width 24] [--inputs 24] [--optimiser sgd] [--subsets 60] [--epochs 12]

Truth: the net trained again by a plain torch loop with example weights 0 and 1, the same initial parameters and order
of batches, the denominator of each batch fixed. LDS: mean over queries of the Spearman correlation of predicted and
measured margins over random subsets. Times are CPU seconds of fit and attribute in this process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import nn

import upweight as uw

N, QUERIES, BATCH = 600, 40, 50


def data(inputs: int) -> tuple[uw.Examples, uw.Examples]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order] / 16.0, y[order]
    if inputs < x.shape[1]:
        x = PCA(inputs, random_state=0).fit(x[:N]).transform(x)
    x = x.astype(np.float32)
    return uw.Examples(x[:N], y[:N]), uw.Examples(x[N : N + QUERIES], y[N : N + QUERIES])


def loss(net: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def margin(net: nn.Module, batch: Any) -> torch.Tensor:
    z = net(batch.x)
    own = F.one_hot(batch.y, z.shape[1]).bool()
    return z[own] - z.masked_fill(own, -torch.inf).logsumexp(dim=1)


def trained(train: uw.Examples, given: argparse.Namespace, weights: np.ndarray, folder: str | None = None) -> nn.Module:
    """A plain loop; with a folder it is recorded in two lines."""
    torch.manual_seed(given.seed)
    inputs = train.x.shape[1]
    net = nn.Sequential(nn.Linear(inputs, given.width), nn.GELU(), nn.Linear(given.width, 10))
    x, y, w = torch.as_tensor(train.x), torch.as_tensor(train.y), torch.as_tensor(weights, dtype=torch.float32)
    steps = given.epochs * N // BATCH
    if given.optimiser == "sgd":
        optimiser: Any = torch.optim.SGD(net.parameters(), lr=given.rate, momentum=0.9, weight_decay=given.decay)
    else:
        optimiser = torch.optim.AdamW(net.parameters(), lr=given.rate, weight_decay=given.decay, eps=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: 1.0 - t / steps)
    if folder is not None:
        trajectory = uw.Trajectory(folder, every=given.every)
    for epoch in range(given.epochs):
        order = torch.as_tensor(np.random.default_rng([given.seed, epoch]).permutation(N))
        for where in order.split(BATCH):
            optimiser.zero_grad()
            (w[where] * F.cross_entropy(net(x[where]), y[where], reduction="none")).sum().div(BATCH).backward()
            optimiser.step()
            if folder is not None:
                trajectory.record(net, optimiser)
            schedule.step()
    return net


def measured(net: nn.Module, queries: uw.Examples) -> np.ndarray:
    return np.asarray(uw.TorchModel(net, loss, margin).measure(queries))


def truth(train: uw.Examples, queries: uw.Examples, given: argparse.Namespace, drop: float) -> tuple[Any, Any]:
    """(which were left out (subsets, n), margins (subsets, queries))."""
    rng = np.random.default_rng(int(1000 * drop))
    out = np.zeros((given.subsets, N))
    for row in out:
        row[rng.permutation(N)[: round(drop * N)]] = 1.0
    return out, np.stack([measured(trained(train, given, 1.0 - row), queries) for row in out])


def agreement(values: np.ndarray, out: np.ndarray, margins: np.ndarray) -> tuple[float, float]:
    """LDS, and the slope of measured on predicted changes."""
    predicted = -(out @ values.T)
    lds = np.mean([spearmanr(predicted[:, q], margins[:, q]).statistic for q in range(len(values))])
    actual, centred = margins - margins.mean(axis=0), predicted - predicted.mean(axis=0)
    return float(lds), float((actual * centred).sum() / (centred**2).sum())


def recipes(tau: float, sgd: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "GradDot": uw.GradDot(),
        "GradCos": uw.GradCos(),
        "TracInCP": uw.TracIn(),
        "TracIn-last": uw.TracIn(layers="last"),
        "GAS": uw.GAS(),
        "Influence(GaussNewton), automatic damping": uw.Influence(),
        "RelatIF(GaussNewton)": uw.RelatIF(),
    }
    if sgd:
        found["Influence(GaussNewton), damping 1/τ"] = uw.Influence(damping=1 / tau)
        found["Influence(EKFAC), damping 1/τ"] = uw.Influence(curvature=uw.EKFAC(), damping=1 / tau)
    for segments in (1, 3, 6):
        found[f"SOURCE(EKFAC), L={segments}"] = uw.SOURCE(curvature=uw.EKFAC(), segments=segments)
        found[f"SOURCE(GaussNewton), L={segments}"] = uw.SOURCE(segments=segments)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 24), ("inputs", 24), ("subsets", 60), ("epochs", 12), ("every", 12), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--optimiser", choices=("sgd", "adamw"), default="sgd")
    parser.add_argument("--rate", type=float, default=0.15)
    parser.add_argument("--decay", type=float, default=1e-3)
    given = parser.parse_args()
    train, queries = data(given.inputs)
    with tempfile.TemporaryDirectory() as folder:
        net = trained(train, given, np.ones(N), folder)
        l2 = given.decay if given.optimiser == "sgd" else 0.0
        model = uw.TorchModel(
            net, loss, margin, objective=uw.Objective("mean", l2=l2), trajectory=uw.Trajectory(folder)
        )
        tau = sum(c.travelled for c in model.checkpoints())
        accuracy = np.mean(np.array(model.predict(queries).predicted) == queries.y)
        print(f"{model.network.size} parameters, {given.optimiser}, τ = {tau:.3g}, accuracy {accuracy:.3f}, {given}")
        truths = {drop: truth(train, queries, given, drop) for drop in (0.1, 0.5)}
        other = argparse.Namespace(**{**vars(given), "seed": given.seed + 1})
        for drop, (out, margins) in truths.items():
            again = np.stack([measured(trained(train, other, 1.0 - row), queries) for row in out[:20]])
            found = [spearmanr(margins[:20, q], again[:, q]).statistic for q in range(QUERIES)]
            print(f"true retraining with another seed, {drop:.0%} left out, 20 subsets: LDS {np.mean(found):.3f}")
        print(f"{'method':44s} LDS 10 %  LDS 50 %  slope 10 %  CPU s")
        for name, recipe in recipes(tau, given.optimiser == "sgd").items():
            start = time.process_time()
            values = recipe.fit(model, train).attribute(queries).values
            seconds = time.process_time() - start
            (lds, slope), (half, _) = (agreement(values, *truths[drop]) for drop in (0.1, 0.5))
            print(f"{name:44s} {lds:8.3f} {half:9.3f} {slope:11.3g} {seconds:6.1f}", flush=True)
    centre(train, queries, given, truths[0.5])


def centre(train: uw.Examples, queries: uw.Examples, given: argparse.Namespace, truth: tuple[Any, Any]) -> None:
    """The same from a run in which every example weighs a half, the mean weight of the subsets at 50 %."""
    half = np.full(N, 0.5)
    weighed = uw.Examples(train.x, train.y, weights=half)
    with tempfile.TemporaryDirectory() as folder:
        net = trained(train, given, half, folder)
        model = uw.TorchModel(net, loss, margin, trajectory=uw.Trajectory(folder))
        for segments in (1, 3, 6):
            values = uw.SOURCE(segments=segments).fit(model, weighed).attribute(queries).values
            lds, slope = agreement(2 * values, *truth)
            print(
                f"SOURCE(GaussNewton), L={segments}, recorded at the centre: LDS 50 % {lds:.3f}, slope {slope:.3g}",
                flush=True,
            )


if __name__ == "__main__":
    main()

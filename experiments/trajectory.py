"""Methods over checkpoints against true retraining with the same seed: LDS on the digits MLP.

    python experiments/trajectory.py [--width 24] [--inputs 24] [--optimiser sgd] [--subsets 60] [--epochs 12]

Truth: the net retrained by a plain torch loop with example weights 0 and 1, the same initial parameters and order
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
    is_label = F.one_hot(batch.y, z.shape[1]).bool()
    return z[is_label] - z.masked_fill(is_label, -torch.inf).logsumexp(dim=1)


def trained(
    train: uw.Examples, options: argparse.Namespace, weights: np.ndarray, folder: str | None = None
) -> nn.Module:
    """Train in a plain loop; if a folder is given, two lines record the trajectory."""
    torch.manual_seed(options.seed)
    inputs = train.x.shape[1]
    net = nn.Sequential(nn.Linear(inputs, options.width), nn.GELU(), nn.Linear(options.width, 10))
    x, y, w = torch.as_tensor(train.x), torch.as_tensor(train.y), torch.as_tensor(weights, dtype=torch.float32)
    steps = options.epochs * N // BATCH
    if options.optimiser == "sgd":
        optimiser: Any = torch.optim.SGD(net.parameters(), lr=options.rate, momentum=0.9, weight_decay=options.decay)
    else:
        optimiser = torch.optim.AdamW(net.parameters(), lr=options.rate, weight_decay=options.decay, eps=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: 1.0 - t / steps)
    if folder is not None:
        trajectory = uw.Trajectory(folder, every=options.every)
    for epoch in range(options.epochs):
        order = torch.as_tensor(np.random.default_rng([options.seed, epoch]).permutation(N))
        for batch in order.split(BATCH):
            optimiser.zero_grad()
            (w[batch] * F.cross_entropy(net(x[batch]), y[batch], reduction="none")).sum().div(BATCH).backward()
            optimiser.step()
            if folder is not None:
                trajectory.record(net, optimiser)
            schedule.step()
    return net


def measured(net: nn.Module, queries: uw.Examples) -> np.ndarray:
    return np.asarray(uw.TorchModel(net, loss, margin).measure(queries))


def truth(train: uw.Examples, queries: uw.Examples, options: argparse.Namespace, drop: float) -> tuple[Any, Any]:
    """(1 where an example was left out (subsets, n), margins after retraining (subsets, queries))."""
    rng = np.random.default_rng(int(1000 * drop))
    out = np.zeros((options.subsets, N))
    for row in out:
        row[rng.permutation(N)[: round(drop * N)]] = 1.0
    return out, np.stack([measured(trained(train, options, 1.0 - row), queries) for row in out])


def agreement(values: np.ndarray, out: np.ndarray, margins: np.ndarray) -> tuple[float, float]:
    """LDS, and the slope of measured on predicted changes."""
    predicted = -(out @ values.T)
    lds = np.mean([spearmanr(predicted[:, q], margins[:, q]).statistic for q in range(len(values))])
    actual, centred = margins - margins.mean(axis=0), predicted - predicted.mean(axis=0)
    return float(lds), float((actual * centred).sum() / (centred**2).sum())


def recipes(tau: float, sgd: bool) -> dict[str, Any]:
    methods: dict[str, Any] = {
        "GradDot": uw.GradDot(),
        "GradCos": uw.GradCos(),
        "TracInCP": uw.TracIn(),
        "TracIn-last": uw.TracIn(modules="last"),
        "GAS": uw.GAS(),
        "Influence(GaussNewton), automatic damping": uw.Influence(),
        "RelatIF(GaussNewton)": uw.RelatIF(),
    }
    if sgd:
        methods["Influence(GaussNewton), damping 1/τ"] = uw.Influence(damping=1 / tau)
        methods["Influence(EKFAC), damping 1/τ"] = uw.Influence(curvature=uw.EKFAC(), damping=1 / tau)
    for segments in (1, 3, 6):
        methods[f"SOURCE(EKFAC), L={segments}"] = uw.SOURCE(curvature=uw.EKFAC(), segments=segments)
        methods[f"SOURCE(GaussNewton), L={segments}"] = uw.SOURCE(segments=segments)
    return methods


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 24), ("inputs", 24), ("subsets", 60), ("epochs", 12), ("every", 12), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--optimiser", choices=("sgd", "adamw"), default="sgd")
    parser.add_argument("--rate", type=float, default=0.15)
    parser.add_argument("--decay", type=float, default=1e-3)
    options = parser.parse_args()
    train, queries = data(options.inputs)
    with tempfile.TemporaryDirectory() as folder:
        net = trained(train, options, np.ones(N), folder)
        l2 = options.decay if options.optimiser == "sgd" else 0.0
        model = uw.TorchModel(
            net, loss, margin, objective=uw.Objective("mean", l2=l2), trajectory=uw.Trajectory(folder)
        )
        tau = sum(c.learning_rate_sum for c in model.checkpoints())
        accuracy = np.mean(np.array(model.predict(queries).predicted) == queries.y)
        print(
            f"{model.network.size} parameters, {options.optimiser}, τ = {tau:.3g}, accuracy {accuracy:.3f}, {options}"
        )
        truths = {drop: truth(train, queries, options, drop) for drop in (0.1, 0.5)}
        other = argparse.Namespace(**{**vars(options), "seed": options.seed + 1})
        for drop, (out, margins) in truths.items():
            other_margins = np.stack([measured(trained(train, other, 1.0 - row), queries) for row in out[:20]])
            correlations = [spearmanr(margins[:20, q], other_margins[:, q]).statistic for q in range(QUERIES)]
            print(
                f"true retraining with another seed, {drop:.0%} left out, 20 subsets: LDS {np.mean(correlations):.3f}"
            )
        print(f"{'method':44s} LDS 10 %  LDS 50 %  slope 10 %  CPU s")
        for name, recipe in recipes(tau, options.optimiser == "sgd").items():
            start = time.process_time()
            values = recipe.fit(model, train).attribute(queries).values
            seconds = time.process_time() - start
            (lds, slope), (half, _) = (agreement(values, *truths[drop]) for drop in (0.1, 0.5))
            print(f"{name:44s} {lds:8.3f} {half:9.3f} {slope:11.3g} {seconds:6.1f}", flush=True)
    centre(train, queries, options, truths[0.5])


def centre(train: uw.Examples, queries: uw.Examples, options: argparse.Namespace, truth: tuple[Any, Any]) -> None:
    """The same for a run in which every example has weight ½, the mean weight of the subsets at 50 %."""
    half = np.full(N, 0.5)
    weighted = uw.Examples(train.x, train.y, weights=half)
    with tempfile.TemporaryDirectory() as folder:
        net = trained(train, options, half, folder)
        model = uw.TorchModel(net, loss, margin, trajectory=uw.Trajectory(folder))
        for segments in (1, 3, 6):
            values = uw.SOURCE(segments=segments).fit(model, weighted).attribute(queries).values
            lds, slope = agreement(2 * values, *truth)
            print(
                f"SOURCE(GaussNewton), L={segments}, recorded at the centre: LDS 50 % {lds:.3f}, slope {slope:.3g}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""MNIST by dattri's benchmark of a multilayer perceptron: its training, protocol and metrics, and our scores."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from benchmarks.published_logistic import Recorded, cross_entropy
from benchmarks.published_mnist import digits, interval
from benchmarks.replayed import keep
from benchmarks.results import Table, verdict
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, TensorDataset

import upweight as uw

Array = NDArray[np.float64]
TRAIN, QUERIES, BATCH, EPOCHS, RATE, MOMENTUM = 5000, 500, 64, 50, 0.01, 0.9  # dattri's
HALVES, AGAIN, SINGLES, NETS = 50, 10, 10, 19  # AGAIN: halves that are trained twice; NETS: of an ensemble
FIRST_SEEDS, OTHER_HALVES, OTHER_SEEDS = (1000, 2000), 10_000, 5000  # the net that is explained has seed 0
FEW, FEWER = 100, 12  # queries of the ensemble and of the metagradient
SAME_STEPS, CHART = 0.9, 0.45  # targets: LOO r where steps are the same; the best LDS of dattri's chart
FOLDER = Path(tempfile.gettempdir()) / "upweight-benchmarks" / "published" / f"perceptron-{BATCH}-{EPOCHS}"
METAGRADIENT, ENSEMBLE = "Metagradient, full set", f"Influence, EK-FAC, mean of {NETS} nets of other halves"
SHOWN = {"TRAK, 50 nets": ".45", "explicit influence (CG)": ".26", "TracIn": ".15", "GradDot": ".10"}  # LDS


@dataclass(frozen=True, eq=False)
class Perceptron:
    """Dattri's digits, training function and retrainings; all that takes long is made once, then read."""

    module: Any
    data: Path

    @cached_property
    def tensors(self) -> Any:
        return digits(self.data, TRAIN, QUERIES)

    @cached_property
    def train(self) -> uw.Examples:
        return uw.Examples(self.tensors[0].numpy(), self.tensors[1].numpy())

    def queries(self, count: int = QUERIES) -> uw.Examples:
        return uw.Examples(self.tensors[2][:count].numpy(), self.tensors[3][:count].numpy())

    @cached_property
    def halves(self) -> Array:
        return np.stack([_half(i) for i in range(HALVES)])

    @cached_property
    def singles(self) -> Array:
        return np.random.default_rng(0).choice(TRAIN, SINGLES, replace=False)

    def trained(self, rows: Any, seed: int, shuffled: bool = True) -> tuple[nn.Module, Recorded]:
        """(The net, its batches with the random numbers of their dropout)."""
        part = TensorDataset(*(tensor[rows] for tensor in self.tensors[:2]))
        order = Recorded(RandomSampler(part) if shuffled else SequentialSampler(part), BATCH, drop_last=False)
        loader = DataLoader(part, sampler=order, batch_size=None)  # a batch at a time, not digit by digit
        return self.module.train_mnist_mlp(loader, seed=seed, epoch_num=EPOCHS).eval(), order

    @cached_property
    def model(self) -> uw.TorchModel:
        """The net with the training that made it."""
        net, order = self.trained(np.arange(TRAIN), 0)
        torch.manual_seed(0)
        start = self.module.create_mlp_model("mnist").state_dict()
        steps = {"batches": order.drawn, "random_states": order.states, "denominator": "renormalised"}
        training = uw.Training(lr=RATE, momentum=MOMENTUM, initial=start, **steps)
        return uw.TorchModel(net, cross_entropy, training=training)

    def half(self, i: int, again: int = 0) -> Array:
        """Losses (queries,) of a net trained on half of the digits."""
        return _saved(f"half-{i}-{again}", lambda: self._losses(self.trained(_half(i), FIRST_SEEDS[again] + i)[0]))[0]

    def single(self, i: int, seed: int) -> Array:
        """Losses of dattri's retraining without a digit, which batches the others anew, in their order."""
        rows = np.delete(np.arange(TRAIN), self.singles[i])
        return _saved(f"single-{i}-{seed}", lambda: self._losses(self.trained(rows, seed, shuffled=False)[0]))[0]

    def weighted(self, i: int) -> Array:
        """Losses after the same steps, initial parameters and dropout, in which the digit weighs 0."""
        weights = np.ones(TRAIN)
        weights[self.singles[i]] = 0.0
        return _saved(f"weighted-{i}", lambda: self._losses(self.model.retrain(self.train, weights).network.net))[0]

    def scores(self, name: str) -> tuple[Array, float]:
        """(Scores (queries, train), processor seconds)."""
        return _saved(f"scores-{name}", lambda: SCORES[name](self))

    def fitted(self, method: Any, count: int = QUERIES, seed: int | None = None) -> Array:
        """Scores at the net that is explained, or at one that was trained with this seed on another half."""
        if isinstance(method, uw.Metagradient):
            return np.asarray(method.fit(self.model, self.train).attribute(self.queries(count)).values)
        at_half = None if seed is None else self.trained(_half(OTHER_HALVES + seed), OTHER_SEEDS + seed)[0]
        model = uw.TorchModel(self.model.network.net if at_half is None else at_half, cross_entropy)
        return np.asarray(method.fit(model, self.train).attribute(self.queries(count)).values)

    def _losses(self, net: nn.Module) -> Array:
        with torch.no_grad():
            return F.cross_entropy(net(self.tensors[2]), self.tensors[3], reduction="none").numpy()


SCORES: dict[str, Callable[[Perceptron], Array]] = {
    METAGRADIENT: lambda of: of.fitted(uw.Metagradient(at="full", removals=0), FEWER),
    ENSEMBLE: lambda of: np.mean([of.fitted(uw.Influence(curvature=uw.EKFAC()), FEW, k) for k in range(NETS)], axis=0),
    "Influence, EK-FAC": lambda of: of.fitted(uw.Influence(curvature=uw.EKFAC())),
    "GradDot": lambda of: of.fitted(uw.GradDot()),
    "GradCos": lambda of: of.fitted(uw.GradCos()),
    "chance": lambda _: np.random.default_rng(0).normal(size=(QUERIES, TRAIN)),
}


def multilayer_perceptron(peers: Any, data: Path) -> Table | None:
    """The table, if dattri is there."""
    if "dattri" not in peers.present:
        return None
    task = Perceptron(peers.module("dattri.benchmark.datasets.mnist.mnist_mlp"), data)
    metrics = peers.module("dattri.metric.metrics")
    halves, again = (np.stack([task.half(i, run) for i in range(n)]) for run, n in ((0, HALVES), (1, AGAIN)))
    runs = [np.stack([task.single(i, seed) for i in range(SINGLES)]) for seed in (0, 1)]
    same = np.stack([task.weighted(i) for i in range(SINGLES)])
    members, without = torch.as_tensor(task.halves), torch.as_tensor(task.singles)
    table = Table(
        "dattri's MNIST benchmark of a multilayer perceptron, by dattri's metrics",
        f"LDS above its chart ({CHART:g}) by more than the interval; LOO r of the metagradient {SAME_STEPS:g} where "
        "steps are the same",
        ["method", "queries", "LDS", "95 % interval", "LOO r, its retraining", "LOO r, same steps", "CPU s", "verdict"],
    )
    for name in SCORES:
        values, seconds = task.scores(name)
        count, score = len(values), -torch.as_tensor(np.ascontiguousarray(values.T))  # dattri: the loss, (train, m)
        lds = metrics.lds(score, (torch.as_tensor(halves[:, :count]), members))[0].numpy()
        loo = [
            float(
                np.nanmean(-metrics.loo_corr(score[without], (torch.as_tensor(truth[:, :count]), without))[0].numpy())
            )
            for truth in (runs[0], same)
        ]
        low, high = interval(lds)
        met = {ENSEMBLE: verdict(low > CHART), METAGRADIENT: verdict(loo[1] >= SAME_STEPS)}.get(name, "")
        table.add(name, count, float(np.nanmean(lds)), f"{low:.3f} … {high:.3f}", *loo, seconds, met)
    table.rows.sort(key=lambda row: -row[2])
    for name, shown in SHOWN.items():
        table.add(f"dattri's chart: {name}", "", shown, "", "≤ .025", "", "", "")
    table.notes = notes(halves[:AGAIN], again, runs)
    return table


def notes(halves: Array, again: Array, runs: list[Array]) -> list[str]:
    """The protocol, what is shortened, and the noise of its seeds."""
    agree = float(np.nanmean([spearmanr(a, b)[0] for a, b in zip(halves.T, again.T, strict=True)]))
    alone = float(np.nanmean([pearsonr(a, b)[0] for a, b in zip(runs[0].T, runs[1].T, strict=True)]))
    return [
        f"{TRAIN:,} digits, {QUERIES} queries; {HALVES} random halves, one run of each with a seed of its own, and "
        f"{SINGLES} single digits left out (dattri: 5,000), trained by dattri's own function ({EPOCHS} epochs, batches "
        f"of {BATCH}, dropout .1, momentum {MOMENTUM:g}, constant rate). Some methods have the first queries alone. "
        "Intervals: 95 %, bootstrap over the queries.",
        f"Two trainings of the same halves with two seeds agree by {agree:.3f} ({AGAIN} halves), so scores without any "
        f"error would reach an LDS of about {max(agree, 0.0) ** 0.5:.2f}.",
        f"Its retrainings without single digits with two seeds agree by r = {alone:+.3f}: what it measures is the "
        "noise of order and dropout, which its batching of the remaining digits draws anew; no score can predict it. "
        "The replay of its training (recorded batches, dropout by recorded random numbers) gives its net bit for bit.",
        "With the same steps single digits are not predicted either: this training at a constant rate is not smooth in "
        "the weights. Of one digit that was tried, a thousandth of the weight raised the loss of a query by .92 and "
        "all of it by 1.24, where the derivative says −.003 for all of it.",
        "LDS grows with the nets of the ensemble (.21 with one, .27 with 8); the chart's TRAK has 50.",
    ]


def _half(i: int) -> Array:
    return np.random.default_rng(i).choice(TRAIN, TRAIN // 2, replace=False)


def _saved(name: str, made: Callable[[], Array]) -> tuple[Array, float]:
    """(What is made, or was made before; the processor seconds that it took)."""
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        start = time.process_time()
        values = made()
        keep(path, values=values, seconds=time.process_time() - start)
    with np.load(path) as archive:
        return archive["values"], float(archive["seconds"])

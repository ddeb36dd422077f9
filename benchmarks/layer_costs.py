"""What EK-FAC costs beside a net's own forward-backward pass, kind of layer by kind; and how the cost grows.

    python -m benchmarks.layer_costs        two to five minutes of one core

Nets have random weights and data: costs do not depend on them.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from benchmarks.network_worker import _held, _most
from benchmarks.picture_nets import depthwise
from benchmarks.results import Section, Table, verdict, versions
from torch import Tensor, nn

import upweight as uw

QUERIES, ROUNDS, BATCH, MEGA = 20, 3, 256, 1e6
BASE = {"n": 1000, "width": 256, "queries": 50}
SIZES = {"n": (500, 2000, 8000), "width": (128, 256, 512, 1024), "queries": (50, 200, 800)}
MOST_RATIO = 2.0


class Recurrent(nn.Module):
    """A recurrent layer of 64 units, and a linear one on its last output."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer: nn.Module = kind(16, 64, batch_first=True)  # type: ignore[arg-type]
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


def plain() -> nn.Module:
    """The channels and strides of the depthwise net, by plain convolutions."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 32, 2), (32, 64, 1), (64, 128, 2), (128, 128, 1)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def mlp(inputs: int = 784, width: int = 256) -> nn.Module:
    """Two hidden layers."""
    return nn.Sequential(
        *(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    )


# Name → net, shape of an example, examples, the net beside whose multiple its own is put.
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, str]] = {
    "plain convolutions": (plain, (3, 32, 32), 64, ""),
    "plain convolutions, channels_last": (
        lambda: plain().to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        *((3, 32, 32), 64, "plain convolutions"),
    ),
    "depthwise and pointwise convolutions": (depthwise, (3, 32, 32), 64, "plain convolutions"),
    "MLP 784-256-256-10": (mlp, (784,), 1000, ""),
    "LSTM of 64 units, 12 steps": (lambda: Recurrent(nn.LSTM), (12, 16), 1000, "MLP 784-256-256-10"),
    "GRU of 64 units, 12 steps": (lambda: Recurrent(nn.GRU), (12, 16), 1000, "MLP 784-256-256-10"),
}


def losses(net: nn.Module, batch: Any) -> Tensor:
    """Cross-entropy of every example."""
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def problem(net: nn.Module, shape: tuple[int, ...], n: int, queries: int) -> tuple[Any, uw.Examples, uw.Examples]:
    """The model, its training set and the queries."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n + queries, *shape)).astype(np.float32)
    examples = uw.Examples(x, rng.integers(0, 10, n + queries))
    where = np.arange(n + queries)
    return uw.TorchModel(net.eval(), losses), examples.take(where[:n]), examples.take(where[n:])


def scores_by_ekfac(model: Any, train: uw.Examples, queries: uw.Examples) -> float:
    """CPU seconds of the fit and the scores."""
    start = time.process_time()
    uw.Influence(curvature=uw.EKFAC()).fit(model, train).attribute(queries)
    return time.process_time() - start


def one_pass(model: Any, train: uw.Examples, queries: uw.Examples) -> float:
    """CPU seconds of a plain forward and backward pass over training set and queries."""
    start = time.process_time()
    for examples in (train, queries):
        for part in examples.batches(BATCH):
            losses(model.network.net, model.network.batch(part)).sum().backward()  # type: ignore[no-untyped-call]
    model.network.net.zero_grad()
    return time.process_time() - start


def layers_table() -> Table:
    table = Table(
        f"EK-FAC beside the net's own pass: fit and scores of {QUERIES} queries",
        f"at most {MOST_RATIO:g} times the multiple of plain convolutions, or of an MLP",
        ["net", "parameters", "n", "one pass s", "EK-FAC s", "× one pass", "÷ multiple of the plain net", "verdict"],
    )
    multiples: dict[str, float] = {}
    for name, (make, shape, n, beside) in NETS.items():
        torch.manual_seed(0)
        given = problem(make(), shape, n, QUERIES)
        one_pass(*given), scores_by_ekfac(*given)  # first calls are not counted
        rounds = np.array([(one_pass(*given), scores_by_ekfac(*given)) for _ in range(ROUNDS)])
        multiples[name] = float(np.median(rounds[:, 1] / rounds[:, 0]))
        ratio = multiples[name] / multiples[beside] if beside else 0.0
        cells = [f"{given[0].network.size:,}", n, *np.median(rounds, axis=0).tolist(), f"{multiples[name]:.1f}"]
        met = verdict(ratio <= MOST_RATIO) if beside else ""
        table.add(name, *cells, f"{ratio:.2f}" if beside else "", met)
        print(table.rows[-1], flush=True)
    table.notes = [
        f"CPU seconds, medians of {ROUNDS} rounds. Ten classes; EK-FAC takes the expectation over all ten labels, and "
        "small nets pay for the eigenvectors of their factors, whatever n is.",
    ]
    return table


def _in_child(sizes: dict[str, int], answers: Any) -> None:
    torch.set_num_threads(1)
    given = problem(mlp(64, sizes["width"]), (64,), sizes["n"], sizes["queries"])
    before = _held()
    seconds = scores_by_ekfac(*given)
    answers.send((seconds, max(0, _most() - before)))


def measured(sizes: dict[str, int]) -> tuple[float, float]:
    """(CPU seconds, peak bytes above what was held before), in a process of its own."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_in_child, args=(sizes, sender))
    process.start()
    result: tuple[float, float] = receiver.recv()
    process.join()
    return result


def growth_table() -> Table:
    table = Table(
        "How EK-FAC grows on an MLP 64-w-w-10",
        "none was set beforehand",
        ["what grows", "sizes", "CPU s", "slope of seconds", "peak MB", "slope of memory"],
    )
    scores_by_ekfac(*problem(mlp(64, 16), (64,), 50, 5))  # imports
    for name, sizes in SIZES.items():
        results = np.array([measured(BASE | {name: size}) for size in sizes])
        slopes = [float(np.polyfit(np.log(sizes), np.log(column), 1)[0]) for column in results.T]
        seconds, memory = (
            ", ".join(f"{value:.3g}" for value in column) for column in (results[:, 0], results[:, 1] / MEGA)
        )
        table.add(name, ", ".join(map(str, sizes)), seconds, f"{slopes[0]:.2f}", memory, f"{slopes[1]:.2f}")
        print(table.rows[-1], flush=True)
    table.notes = [
        f"The others stay at n = {BASE['n']:,}, w = {BASE['width']}, {BASE['queries']} queries. Slopes are those of a "
        "line through the logarithms; each size runs once, in a process of its own. Memory is what the process held "
        "at most, less what it held before the fit.",
    ]
    return table


def main() -> None:
    torch.set_num_threads(1)
    tables = [growth_table(), layers_table()]
    command = "OMP_NUM_THREADS=1 python -m benchmarks.layer_costs"
    Section(
        "layer costs", "What EK-FAC costs by layer and size", command, tables, versions(["torch", "upweight"])
    ).keep()


if __name__ == "__main__":
    main()

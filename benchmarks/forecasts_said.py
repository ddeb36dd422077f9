"""What long work says of itself beside what it took: the first line on standard error, for methods of every kind.

`python -m benchmarks.forecasts_said --data DIR [--works TracIn …]`, with OMP_NUM_THREADS=1. Every work is a process of
its own, in which the library's clock counts processor seconds. Memory is the most that a part of the work,
such as the fit, holds beyond what the process held before.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from benchmarks.forecasts import fresh_peak, peak_bytes, run_alone, task
from benchmarks.nets import KINDS, class_losses, images
from benchmarks.results import Table, keep_table, replace_rows, verdict
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier
from torch import nn

import upweight as uw
from upweight.core import forecast, loop_pace, task_clock

Work = Callable[[], Any]
SAID = re.compile(r": about ([\d.]+) (s|min|h)(?: and ([\d.,]+) (bytes|kB|MB|GB) of (?:memory|results))?")
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "bytes": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}
LIMIT = 90  # processor seconds of a run
LEAST_MEMORY = 50.0  # MB: less is that of the libraries, whatever the work


def loss(net: nn.Module, batch: Any) -> torch.Tensor:
    return class_losses(net(batch.x), batch.y)


def network(data: Path, folder: Path, name: str = "mlp") -> tuple[uw.TorchModel, uw.Examples, uw.Examples]:
    given = task(name, data, folder)
    train, queries = (uw.Examples(x.numpy(), y.numpy()) for x, y in ((given.x, given.y), (given.xq, given.yq)))
    kind = given.kind
    return uw.TorchModel(given.net, lambda net, batch: kind.losses(net(batch.x), batch.y)), train, queries


def small(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


def digits(data: Path, count: int, queries: int) -> tuple[uw.Examples, uw.Examples]:
    x, y, xq, yq = (part.numpy() for part in images(data, replace(KINDS["mlp"], train=count, queries=queries)))
    return uw.Examples(x, y), uw.Examples(xq, yq)


def recorded(data: Path, folder: Path, queries: int, steps: bool) -> tuple[uw.TorchModel, uw.Examples, uw.Examples]:
    """A small net with the checkpoints of its training, and the batches of all steps if these are asked for."""
    train, asked = digits(data, 2000, queries)
    net, place = small(0), Path(tempfile.mkdtemp(dir=folder))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    order = np.random.default_rng(0)
    batches = [part for _ in range(6) for part in np.split(order.permutation(len(train)), 40)]
    trajectory = uw.Trajectory(place, every=len(batches) // 6)
    if steps:
        trajectory.save(net, optimiser)
    for where in batches:
        optimiser.zero_grad()
        class_losses(net(torch.from_numpy(train.x[where])), torch.from_numpy(train.y[where])).mean().backward()
        optimiser.step()
        trajectory.record(net, optimiser, batch=where if steps else None)
    return uw.TorchModel(net, loss, trajectory=trajectory), train, asked


def whole(method: Any, model: Any, train: uw.Examples, queries: uw.Examples) -> Work:
    return lambda: method.fit(model, train).attribute(queries)


def of_recorded(method: Any, queries: int = 100, steps: bool = False) -> Callable[[Path, Path], Work]:
    return lambda data, folder: whole(method, *recorded(data, folder, queries, steps))


def of_network(method: Any, name: str = "mlp", most: int | None = None) -> Callable[[Path, Path], Work]:
    """`most`: so many examples at most."""

    def work(data: Path, folder: Path) -> Work:
        model, train, queries = network(data, folder, name)
        return whole(method, model, train.take(range(min(most or len(train), len(train)))), queries)

    return work


def self_influence(data: Path, folder: Path) -> Work:
    model, train, _ = network(data, folder)
    fitted = uw.Influence(curvature=uw.EKFAC()).fit(model, train)
    return fitted.self_influence


def removed_groups(data: Path, folder: Path) -> Work:
    x, y = make_classification(6000, 300, n_informative=40, random_state=0)
    train = uw.Examples(x, y)
    model = uw.explainable(LogisticRegression(C=0.1, max_iter=5000, tol=1e-8).fit(x, y), train)
    fitted = uw.Influence().fit(model, train)
    groups = {str(i): train.ids[i::150][:40].tolist() for i in range(150)}
    return lambda: fitted.remove(groups, train.take(range(50)))


def replayed(method: Any, queries: int) -> Callable[[Path, Path], Work]:
    def work(data: Path, folder: Path) -> Work:
        train, asked = digits(data, 1000, queries)
        model = uw.TorchModel.trained(small, loss, train, training=uw.Training(epochs=4, batch_size=50, lr=0.05))
        return whole(method, model, train, asked)

    return work


def refitted(method: Any, count: int = 400, queries: int = 50) -> Callable[[Path, Path], Work]:
    def work(data: Path, folder: Path) -> Work:
        x, y = load_digits(return_X_y=True)
        train, asked = uw.Examples(x[:count] / 16, y[:count]), uw.Examples(x[-queries:] / 16, y[-queries:])
        return whole(
            method, uw.refittable(DecisionTreeClassifier(max_depth=8).fit(train.x, train.y), train), train, asked
        )

    return work


def wide(data: Path, folder: Path) -> Work:
    x, y = make_classification(6000, 6000, n_informative=100, random_state=0)
    train = uw.Examples(x, y)
    model = uw.explainable(LogisticRegression(C=0.001, max_iter=2000).fit(x, y), train)
    return lambda: uw.Influence().fit(model, train)


def trees(method: Any, count: int, rounds: int) -> Callable[[Path, Path], Work]:
    def work(data: Path, folder: Path) -> Work:
        import lightgbm

        x, y = make_classification(count + 50, 20, n_informative=10, random_state=0)
        train, asked = uw.Examples(x[:count], y[:count]), uw.Examples(x[count:], y[count:])
        booster = lightgbm.LGBMClassifier(n_estimators=rounds, n_jobs=1, verbose=-1).fit(train.x, train.y)
        return whole(method, uw.explainable(booster, train), train, asked)

    return work


def forest(data: Path, folder: Path) -> Work:
    x, y = load_breast_cancer(return_X_y=True)
    train, asked = uw.Examples(x[:450], y[:450]), uw.Examples(x[450:], y[450:])
    estimator = RandomForestClassifier(30, random_state=0).fit(train.x, train.y)
    return whole(uw.LeaveOneOut(), uw.explainable(estimator, train), train, asked)


def built(data: Path, folder: Path) -> Work:
    model, train, queries = network(data, folder)
    store = uw.Store(Path(tempfile.mkdtemp(dir=folder)) / "store")
    return lambda: uw.Influence(curvature=uw.EKFAC()).fit(model, train, store=store).attribute(queries)


WORKS: dict[str, Callable[[Path, Path], Work]] = {
    "RelatIF (EKFAC), MLP": of_network(uw.RelatIF(curvature=uw.EKFAC())),
    "self-influence (EKFAC), MLP": self_influence,
    "TrackStar, MLP, 1,500 examples": of_network(uw.TrackStar(), most=1500),
    "GradCos, GPT": of_network(uw.GradCos(), "gpt"),
    "store and answers (EKFAC), MLP": built,
    "TracIn, 6 checkpoints": of_recorded(uw.TracIn(), 1000),
    "LESS, 6 checkpoints": of_recorded(uw.LESS(), 200),
    "GAS, 6 checkpoints": of_recorded(uw.GAS(), 200),
    "SOURCE by segments": of_recorded(uw.SOURCE(segments=3), 20),
    "SOURCE by steps": of_recorded(uw.SOURCE(), 100, steps=True),
    "Metagradient": replayed(uw.Metagradient(), 300),
    "LeaveOneOut, retrained net": replayed(uw.LeaveOneOut(), 20),
    "DataShapley, decision tree": refitted(uw.DataShapley()),
    "Datamodels, decision tree": refitted(uw.Datamodels(), 300),
    "LeaveOneOut, forest": forest,
    "LeafRefit, LightGBM": trees(uw.LeafRefit(), 8000, 100),
    "LeafInfluence, LightGBM": trees(uw.LeafInfluence(), 40_000, 300),
    "Influence, 6,000 columns": wide,
    "removal of 150 groups, logistic": removed_groups,
}


class Heard(logging.Handler):
    """Keeps every line, with the processor seconds of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[float, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((time.process_time(), record.getMessage()))


def measure(name: str, data: Path, folder: Path) -> None:
    """Print the seconds and MB of the first line of each part of the work, when it came, and what the work took."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, resource.RLIM_INFINITY))
    heard = Heard()
    logging.getLogger("upweight.forecast").addHandler(heard)
    work = WORKS[name](data, folder)
    # Not the clock of pilots: that of the processor is too coarse for steps of a millisecond.
    for module in (forecast, loop_pace, task_clock):
        module.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[attr-defined]
    heard.lines.clear()
    growths, start = growths_of_parts(), time.process_time()
    work()
    seconds = time.process_time() - start
    print(json.dumps([seconds, max(growths()) / 1e6, [(at - start, line) for at, line in heard.lines]]))


def growths_of_parts() -> Callable[[], list[float]]:
    """From now on, note how many bytes every part of the work adds at most: lines are about parts, such as a fit."""
    starts, growths = [fresh_peak()], list[float]()
    begin = forecast.Job.__init__

    def noted(job: forecast.Job, name: str, expected: forecast.Forecast) -> None:
        if forecast.running_job() is None:
            growths.append(float(peak_bytes() - starts[-1]))
            starts.append(fresh_peak())
        begin(job, name, expected)

    forecast.Job.__init__ = noted  # type: ignore[method-assign]
    return lambda: [*growths, float(peak_bytes() - starts[-1])]


def cells(run: subprocess.CompletedProcess[str]) -> list[Any]:
    if run.returncode:
        return ["–"] * 6 + [(run.stderr.strip().splitlines() or [f"stopped after {LIMIT} s"])[-1][:80]]
    seconds, peak, lines = json.loads(run.stdout.splitlines()[-1])
    found = [(at, SAID.search(line)) for at, line in lines if not line.startswith("  …")]
    said = [(at, match) for at, match in found if match is not None]
    if not said:
        return ["–", f"{seconds:.1f}", "–", "–", f"{peak:.0f}", "–", verdict(False) if seconds >= 20 else ""]
    # parts of a work, such as fit and answers, have a line each; what is not said takes less than ten seconds
    whole = sum(float(match[1]) * UNITS[match[2]] for _, match in said)
    sizes = [float(match[3].replace(",", "")) * UNITS[match[4]] for _, match in said if match[3]]
    size = max(sizes, default=0.0)
    is_met = 0.5 <= whole / seconds <= 2 and (not sizes or max(peak, size) <= LEAST_MEMORY or 0.5 <= size / peak <= 2)
    figures = f"{whole:.0f}", f"{seconds:.1f}", f"{whole / seconds:.2f}", f"{size:.0f}" if sizes else "–", f"{peak:.0f}"
    return [*figures, f"{said[0][0]:.1f}", verdict(is_met)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--works", nargs="*", default=list(WORKS))
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "upweight-benchmarks" / "forecasts"
    )
    parser.add_argument("--replace", action="store_true", help="put these rows into the table of earlier runs")
    parser.add_argument("--one", default=None)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        measure(arguments.one, arguments.data, arguments.folder)
        return
    table = Table(
        "What long work says of itself",
        "time and memory of the lines within a factor of two of what the work took",
        ["work", "said s", "CPU s", "ratio", "said MB", "peak MB", "said after, CPU s", ""],
    )
    for name in arguments.works:
        own = ["--data", str(arguments.data), "--folder", str(arguments.folder), "--one", name]
        run = run_alone("benchmarks.forecasts_said", own)
        table.add(name, *cells(run))
        print(table.rows[-1], *run.stdout.splitlines()[-1:], flush=True)
    if set(arguments.works) == set(WORKS):
        keep_table(table)
    elif arguments.replace:
        replace_rows(table, keys=1)


if __name__ == "__main__":
    main()

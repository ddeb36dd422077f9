"""Forecasts of time and memory beside what was measured: every curvature on every network of the benchmark.

`python -m benchmarks.forecasts --data DIR [--tasks mlp cnn gpt] [--recipes EKFAC …]`, with OMP_NUM_THREADS=1. Every
run is a process of its own. Processor seconds; memory is the peak beyond what the process held before.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks import nets
from benchmarks.network_ours import RECIPES
from benchmarks.picture_nets import pictures
from benchmarks.results import HERE, Table, keep_table, replace_rows, verdict
from benchmarks.small_nets import adult, incomes, recordings
from benchmarks.truth import PICTURE_NETS, images, texts

import upweight as uw
from upweight.core.announced_fit import curvature_of
from upweight.core.forecast import Forecast, announced
from upweight.gradients.inspection import inspect
from upweight.gradients.network import Network
from upweight.models.pytorch import forecast_network

SIZES = {  # task → examples and queries, with which most curvatures take more than 10 s where they can
    "mnist": (2000, 200),
    "mlp": (8000, 100),
    "cnn": (2000, 200),
    "spoken": (2000, 100),
    "lstm": (1000, 100),
    "adult": (8000, 200),
    "narrow": (500, 100),
    "resnet": (400, 50),
    "depthwise": (1000, 100),
    "gpt": (512, 32),
}
TASKS = tuple(SIZES)
EPOCHS = {"gpt": 3, "cnn": 3, "narrow": 4, "resnet": 4, "depthwise": 4}  # else 5
LEFT_OUT = {
    *((name, "Hessian") for name in ("mlp", "cnn", "lstm", "narrow", "resnet", "depthwise", "gpt")),
    *((name, "GaussNewton") for name in ("resnet", "depthwise", "gpt")),  # as in networks.py: minutes to hours
}
FEWER_QUERIES = {("mlp", "GaussNewton"): 20}  # hundred of them take ten minutes of conjugate gradients
LIMIT = 400  # processor seconds of a run
CERTAIN = 10.0  # seconds: shorter work is not announced, so its forecast may be further off


def task(name: str, data: Path, folder: Path) -> nets.Task:
    train, queries = SIZES[name]
    kind = replace(nets.KINDS[name], train=train, queries=queries)
    arrays = _arrays(kind, data)
    if name == "adult":  # more rows have more categories
        kind = replace(kind, make=partial(adult, arrays[0].shape[1]))
    net, path = kind.make(), folder / f"{name}.{train}.pt"
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
    else:
        kind = replace(kind, batch=kind.batch or 100, lr=kind.lr or 0.1)
        net = nets.train(kind, arrays[0], arrays[1], None, 0, epochs=EPOCHS.get(name, 5))
        torch.save(net.state_dict(), path)
    return nets.Task(kind, *arrays, net.eval())


def _arrays(kind: nets.Kind, data: Path) -> tuple[torch.Tensor, ...]:
    if kind.name == "gpt":
        return texts(data, kind)[:4]
    if kind.name in PICTURE_NETS:
        return pictures(data, kind.train, kind.queries)[:4]
    load = {"spoken": recordings, "lstm": recordings, "adult": incomes}.get(kind.name)
    return images(data, kind) if load is None else load(data, kind.train, kind.queries)


def measure(name: str, recipe: str, data: Path, folder: Path) -> None:
    """Print forecast and measured seconds, the seconds of both pilots, both sizes in MB, and the forecast's parts."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, resource.RLIM_INFINITY))
    forecast_network.SMALL_WORK = forecast_network.SHORT_FLOPS = 0  # so that short work has a forecast as well
    given = task(name, data, folder)
    kind, method = given.kind, uw.Influence(curvature=RECIPES[recipe])
    train = uw.Examples(given.x.numpy(), given.y.numpy())
    asked = FEWER_QUERIES.get((name, recipe), len(given.xq))
    queries = uw.Examples(given.xq[:asked].numpy(), given.yq[:asked].numpy())

    def fresh() -> uw.TorchModel:
        objective = uw.Objective("mean", l2=kind.l2)
        return uw.TorchModel(given.net, lambda net, batch: kind.losses(net(batch.x), batch.y), objective=objective)

    forecasts, model = [], fresh()
    assert isinstance(model.network, Network)
    with announced("what is loaded on first use", None):  # inside of announced work nothing has a forecast of its own
        few = train.take(range(24))
        method.fit(fresh(), few).attribute(queries.take(range(4)))
        fresh().forecast(method, few), fresh().forecast(method, few, 4, 1.0)
    inspect(model.network, "loss", train)  # which the fit needs as well
    said, pilot, seconds, before = 0.0, 0.0, 0.0, fresh_peak()
    fitted, peak = None, 0
    for count in (None, len(queries)):
        start, wall = time.process_time(), time.perf_counter()
        forecasts.append(model.forecast(method, train, count, curvature_of(fitted)) or Forecast())
        taken = time.process_time() - start
        # A pilot's clock is that of the wall: on a busy machine, the same forecast in processor seconds is less.
        said += forecasts[-1].seconds * min(taken / max(time.perf_counter() - wall, 1e-9), 1.0)
        pilot, start = pilot + taken, time.process_time()
        with announced("what is measured", None):
            if fitted is None:
                before = fresh_peak()
                fitted = method.fit(model, train)
            else:
                fitted.attribute(queries)
        seconds, peak = seconds + time.process_time() - start, peak_bytes()
    whole = forecasts[0] + forecasts[1]
    print(json.dumps([said, seconds, pilot, whole.bytes / 1e6, (peak - before) / 1e6, whole.parts]))


def fresh_peak() -> int:
    """Bytes that this process holds after it has returned what is free; the peak is counted from here (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    """The most bytes that this process held since `fresh_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", default=TASKS)
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES))
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "upweight-benchmarks" / "forecasts"
    )
    parser.add_argument("--replace", action="store_true", help="put these rows into the table of earlier runs")
    parser.add_argument("--one", nargs=2, default=None)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        measure(*arguments.one, arguments.data, arguments.folder)
        return
    table = Table(
        "Forecasts of fitting and asking",
        "time and memory within a factor of two, for work of more than 10 s",
        ["task", "curvature", "forecast CPU s", "measured CPU s", "ratio", "pilot CPU s", "forecast MB", "peak MB", ""],
    )
    for name in arguments.tasks:
        task(name, arguments.data, arguments.folder)
        for recipe in arguments.recipes:
            if (name, recipe) in LEFT_OUT:
                continue
            own = ["--data", str(arguments.data), "--folder", str(arguments.folder), "--one", name, recipe]
            run = run_alone("benchmarks.forecasts", own)
            table.add(name, recipe, *cells(run))
            print(table.rows[-1], run.stdout.splitlines()[-1:], flush=True)
    if set(arguments.tasks) == set(TASKS) and set(arguments.recipes) == set(RECIPES):
        keep_table(table)
    elif arguments.replace:
        replace_rows(table, keys=2)


def run_alone(module: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """What a process of one thread printed that ran this module with these arguments."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])},
        cwd=HERE.parent,
        capture_output=True,
        text=True,
    )


def cells(run: subprocess.CompletedProcess[str]) -> list[Any]:
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["stopped at the limit"])[-1]
        return ["–", "–", "–", "–", "–", "–", reason[:80]]
    forecast, seconds, pilot, size, peak, _ = json.loads(run.stdout.splitlines()[-1])
    ratio = forecast / seconds
    is_met = 0.5 <= ratio <= 2 and 0.5 * peak <= size <= 2 * peak
    figures = f"{forecast:.2f}", f"{seconds:.2f}", f"{ratio:.2f}", f"{pilot:.2f}", f"{size:.0f}", f"{peak:.0f}"
    return [*figures, verdict(is_met) if seconds >= CERTAIN else ""]


if __name__ == "__main__":
    main()

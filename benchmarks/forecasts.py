"""Forecasts of time and memory beside what was measured: every curvature on every network of the benchmark.

`python -m benchmarks.forecasts --data DIR [--tasks mlp cnn gpt] [--recipes EKFAC …]`, with OMP_NUM_THREADS=1. Every
run is a process of its own. Processor seconds; memory is the peak beyond what the process held before.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks import nets
from benchmarks.network_ours import RECIPES
from benchmarks.results import HERE, Table, keep_table, verdict
from benchmarks.truth import images, texts

import upweight as uw
from upweight.curvature.forecast import forecast_answer, forecast_fit
from upweight.curvature.pilot import Pilot
from upweight.curvature.registry import objective_of
from upweight.gradients.inspection import inspect
from upweight.gradients.network import Network

TASKS = ("mnist", "mlp", "cnn", "gpt")
EPOCHS = {"mnist": 5, "mlp": 5, "cnn": 3, "gpt": 3}
LEFT_OUT = {("mlp", "Hessian"), ("cnn", "Hessian"), ("gpt", "Hessian"), ("gpt", "GaussNewton")}  # as in networks.py
LIMIT = 240  # processor seconds of a run
CERTAIN = 10.0  # seconds: shorter work is not announced, so its forecast may be further off


def task(name: str, data: Path, folder: Path) -> nets.Task:
    kind = nets.KINDS[name]
    arrays = images(data, kind) if name != "gpt" else texts(data, kind)[:4]
    net, path = kind.make(), folder / f"{name}.pt"
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
    else:
        kind = replace(kind, batch=kind.batch or 100, lr=kind.lr or 0.1)
        net = nets.train(kind, arrays[0], arrays[1], None, 0, epochs=EPOCHS[name])
        torch.save(net.state_dict(), path)
    return nets.Task(kind, *arrays, net.eval())


def measure(name: str, recipe: str, data: Path, folder: Path) -> None:
    """Print forecast and measured seconds, the pilot's seconds, and both sizes in MB."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, resource.RLIM_INFINITY))
    given = task(name, data, folder)
    kind, curvature = given.kind, RECIPES[recipe]
    train = uw.Examples(given.x.numpy(), given.y.numpy())
    queries = uw.Examples(given.xq.numpy(), given.yq.numpy())

    def fresh() -> uw.TorchModel:
        objective = uw.Objective("mean", l2=kind.l2)
        return uw.TorchModel(given.net, lambda net, batch: kind.losses(net(batch.x), batch.y), objective=objective)

    uw.Influence(curvature=curvature).fit(fresh(), train.take(range(24))).attribute(queries.take(range(4)))
    model = fresh()
    assert isinstance(model.network, Network)
    inspect(model.network, "loss", train)  # which the fit needs as well
    start = time.process_time()
    summed = objective_of(model, train, curvature, 0.01)
    trial = Pilot(summed, time.process_time)
    parts = [forecast_fit(trial, curvature), forecast_answer(trial, curvature, len(queries))]
    pilot = time.process_time() - start
    before, start = resident(), time.process_time()
    uw.Influence(curvature=curvature).fit(model, train).attribute(queries)  # the net was inspected by the pilot
    seconds, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    forecast = parts[0] + parts[1]
    print(json.dumps([forecast.seconds, seconds, pilot, forecast.bytes / 1e6, (peak - before) / 1e6, forecast.parts]))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", default=TASKS)
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES))
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "upweight-benchmarks" / "forecasts"
    )
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
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])}
    for name in arguments.tasks:
        task(name, arguments.data, arguments.folder)
        for recipe in arguments.recipes:
            if (name, recipe) in LEFT_OUT:
                continue
            own = ["--data", str(arguments.data), "--folder", str(arguments.folder), "--one", name, recipe]
            run = subprocess.run(
                [sys.executable, "-m", "benchmarks.forecasts", *own],
                check=False,
                env=environment,
                cwd=HERE.parent,
                capture_output=True,
                text=True,
            )
            table.add(name, recipe, *cells(run))
            print(table.rows[-1], run.stdout.splitlines()[-1:], flush=True)
    if set(arguments.tasks) == set(TASKS) and set(arguments.recipes) == set(RECIPES):
        keep_table(table)


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

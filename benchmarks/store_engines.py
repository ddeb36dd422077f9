"""What several processes cost: one, two and three ranks, and Ray with an actor that is killed; and a second question.

`python -m benchmarks.store_engines --data DIR [--rows 60000] [--widths 1024 1024]`, with OMP_NUM_THREADS=1. Ranks are
started by torchrun, each with an MLP of these widths and MNIST; processor seconds are those of the build alone, and
with everything.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from benchmarks import nets
from benchmarks.results import HERE, Table, keep_table, verdict
from benchmarks.store_quality import class_loss, images, trained
from torch import nn

import upweight as uw

SECOND = "A second question to a store, 2,000 digits, 60 queries"
RANKS = "A store built by several ranks and by Ray actors"
WIDE = "MLP 784-512-256-10"


def mlp_of(widths: Sequence[int]) -> nn.Module:
    torch.manual_seed(0)
    first, second = widths
    return nn.Sequential(nn.Linear(784, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 10))


def task(data: Path, rows: int, weights: Path) -> tuple[uw.TorchModel, uw.Examples]:
    x, y, *_ = images(data)
    state = torch.load(weights, weights_only=True)
    net = mlp_of([len(state[f"{layer}.bias"]) for layer in (0, 2)])
    net.load_state_dict(state)
    return uw.TorchModel(net, class_loss), uw.Examples(x[:rows], y[:rows])


def build_rank(arguments: argparse.Namespace) -> None:
    """One rank of torchrun, or the only process: builds, and writes its processor seconds."""
    torch.set_num_threads(1)
    model, train = task(arguments.data, arguments.rows, arguments.folder / "net.pt")
    rank, count = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    store = uw.Store(arguments.folder / arguments.rank, shard_bytes=1 << 20, how="torchrun")
    start = time.process_time()
    store.build(model, train)
    seconds = time.process_time() - start
    (arguments.folder / f"{arguments.rank}.{rank}.json").write_text(json.dumps([int(count), seconds]))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def compare_ranks(data: Path, rows: int, widths: Sequence[int], folder: Path) -> None:
    x, y, *_ = images(data)
    net = mlp_of(widths)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for batch in torch.randperm(2000, generator=torch.Generator().manual_seed(0)).split(100):
        optimiser.zero_grad()
        F.cross_entropy(net(torch.tensor(x)[batch]), torch.tensor(y)[batch]).backward()
        optimiser.step()
    torch.save(net.state_dict(), folder / "net.pt")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])}
    table = Table(
        f"{RANKS}, {rows:,} digits, MLP 784-{widths[0]}-{widths[1]}-10",
        "equal bytes; total processor time of the build ≤ 1.15 × that of one rank; an actor killed costs its file",
        ["processes", "CPU s of the build", "× one rank", "each rank", "with start-up", "same bytes", ""],
    )
    alone = 0.0
    for count in (1, 2, 3):
        name = f"ranks-{count}"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m"]
        own = ["benchmarks.store_engines", "--data", str(data), "--rows", str(rows), "--folder", str(folder)]
        before = children_seconds()
        subprocess.run([*launch, *own, "--rank", name], env=environment, check=True, cwd=HERE.parent)
        whole = children_seconds() - before
        parts = [json.loads((folder / f"{name}.{rank}.json").read_text())[1] for rank in range(count)]
        alone = alone or sum(parts)
        equal = contents(folder / name) == contents(folder / "ranks-1")
        is_met = equal and sum(parts) <= 1.15 * alone
        shares = " + ".join(f"{part:.1f}" for part in parts)
        ratio = f"{sum(parts) / alone:.2f}"
        table.add(f"{count} rank(s)", f"{sum(parts):.1f}", ratio, shares, f"{whole:.1f}", str(equal), verdict(is_met))
        print(table.rows[-1], flush=True)
    table.add(*by_ray(data, rows, folder))
    print(table.rows[-1], flush=True)
    keep_table(table)


def by_ray(data: Path, rows: int, folder: Path) -> list[str]:
    """Two actors, one of which is killed at its third file of rows."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from store.test_ranks_and_actors import actors

    model, train = task(data, rows, folder / "net.pt")
    killed: list[int] = []

    def kill_one(stage: str, done: int, total: int, /) -> None:
        if stage == "store: rows" and done >= 3 and not killed:
            killed.append(actors()[0])
            os.kill(killed[0], 9)

    uw.Store(folder / "ray", shard_bytes=1 << 20, how="ray", processes=2, progress=kill_one).build(model, train)
    lines = sum(len(path.read_bytes().splitlines()) for path in (folder / "ray").glob("manifest.*.jsonl"))
    equal = contents(folder / "ray") == contents(folder / "ranks-1")
    names = {(line["phase"], line["number"]) for path in (folder / "ray").glob("manifest.*") for line in read(path)}
    extra = lines - len(names)
    cells = ["2 Ray actors, one killed by SIGKILL", "–", "–", f"{extra} file(s) finished twice", "–"]
    return [*cells, str(equal), verdict(equal and extra <= 1 and len(killed) == 1)]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def second_question(data: Path, folder: Path) -> None:
    """Processor seconds of new queries: from the store, and anew."""
    table = Table(
        SECOND,
        "≥ 50 × cheaper than computing anew",
        ["net", "method", "store built and asked", "second batch", "anew without store", "ratio", ""],
    )
    x, y, xq, yq = images(data)
    small = trained(torch.tensor(x[:2000]), torch.tensor(y[:2000]), 0)
    mlp, cnn = nets.KINDS["mlp"], nets.KINDS["cnn"]
    wide = nets.train(mlp, torch.tensor(x[:2000]), torch.tensor(y[:2000]), None, 0, epochs=2)
    xc, xcq = x.reshape(-1, 1, 28, 28), xq.reshape(-1, 1, 28, 28)
    convolutions = nets.train(cnn, torch.tensor(xc[:2000]), torch.tensor(y[:2000]), None, 0, epochs=1)
    given = {
        "MLP 784-128-64-10": (small, x, xq),
        WIDE: (wide, x, xq),
        "CNN (two convolutions, two layers)": (convolutions, xc, xcq),
    }
    for title, (net, inputs, asked) in given.items():
        train = uw.Examples(inputs[:2000], y[:2000])
        first, second = (uw.Examples(asked[part], yq[part]) for part in (slice(60), slice(60, 120)))
        for name, curvature in {"KFAC": uw.KFAC(), "EK-FAC": uw.EKFAC()}.items():
            recipe = uw.Influence(curvature=curvature)
            model = uw.TorchModel(net, class_loss)
            start = time.process_time()
            fitted = recipe.fit(model, train, store=uw.Store(folder / title / name))
            fitted.attribute(first)
            built = time.process_time() - start
            seconds: dict[str, list[float]] = {"again": [], "anew": []}
            for way in 5 * ["again", "again", "again", "anew"]:  # in turns, since the machine has other work as well
                start = time.process_time()
                asked_of = fitted if way == "again" else recipe.fit(uw.TorchModel(net, class_loss), train)
                asked_of.attribute(second)
                seconds[way].append(time.process_time() - start)
            again, anew = (float(np.median(of_way)) for of_way in seconds.values())
            is_met = anew >= 50 * again
            figures = f"{built:.2f}", f"{again:.3f}", f"{anew:.2f}", f"{anew / again:.0f}"
            table.add(title, name, *figures, verdict(is_met))
            print(table.rows[-1], flush=True)
    table.notes.append("60 queries; a second batch also predicts, measures and differentiates its queries.")
    keep_table(table)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--widths", type=int, nargs=2, default=[1024, 1024])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--rank", default=None)
    parser.add_argument("--only", choices=["ranks", "second"], default=None)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        build_rank(arguments)
        return
    folder = Path(tempfile.mkdtemp())
    torch.set_num_threads(1)
    if arguments.only != "ranks":
        second_question(arguments.data, folder)
    if arguments.only != "second":
        compare_ranks(arguments.data, arguments.rows, arguments.widths, folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

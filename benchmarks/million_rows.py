"""A store of a million rows of a small net: building it, and asking it for the strongest examples of many queries.

`python -m benchmarks.million_rows --data DIR [--rows 1000000] [--queries 256] [--precision int8|int4]`, with
OMP_NUM_THREADS=1; `--step build`, then `--step ask` in a process of its own: the peak of memory of the latter alone.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from benchmarks.results import Table, keep_table
from torch import nn

import upweight as uw

FEATURES = 64  # principal components of the images
NOISE = 0.3  # standard deviation of what is added to a feature, over that of the feature

EIGENVALUES = (
    "EK-FAC's eigenvalues are no products of two, as KFAC's are: to the .5 % of rows in int8 its inverse takes more "
    "separable terms than a row has numbers, so that rows are multiplied out; to the 3.5 % of int4 it takes two to "
    "four."
)


def cross_entropy(net: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def write_features(data: Path, folder: Path, rows: int) -> tuple[Any, Any]:
    """Memory-mapped features (rows, 64) in half precision, and labels: images of MNIST with noise."""
    with np.load(data / "mnist.npz") as archive:
        images, labels = archive["xtr"].reshape(len(archive["xtr"]), -1) / 255.0, archive["ytr"].astype(np.int64)
    centred = images - images.mean(axis=0)
    axes = np.linalg.eigh(centred[:5000].T @ centred[:5000])[1][:, -FEATURES:]
    known = (centred @ axes).astype(np.float32)
    known /= known.std(axis=0)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float16, (rows, FEATURES))
    y, generator = np.empty(rows, np.int64), np.random.default_rng(0)
    for start in range(0, rows, 50_000):
        stop = min(start + 50_000, rows)
        chosen = generator.integers(len(known), size=stop - start)
        x[start:stop] = known[chosen] + NOISE * generator.standard_normal((stop - start, FEATURES), dtype=np.float32)
        y[start:stop] = labels[chosen]
    x.flush()
    return np.load(folder / "x.npy", mmap_mode="r"), y


def trained(x: Any, y: Any) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 10))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for start in range(0, min(len(x), 100_000), 100):
        optimiser.zero_grad()
        batch = torch.tensor(np.asarray(x[start : start + 100], dtype=np.float32)), torch.tensor(y[start : start + 100])
        F.cross_entropy(net(batch[0]), batch[1]).backward()
        optimiser.step()
    return net


def peak() -> float:
    """Peak memory of the process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def build(data: Path, folder: Path, rows: int, precision: Any) -> None:
    x, y = write_features(data, folder, rows)
    net = trained(x, y)
    torch.save(net.state_dict(), folder / "net.pt")
    np.save(folder / "y.npy", y)
    model, train = uw.TorchModel(net, cross_entropy), uw.Examples(x, y)
    store = uw.Store(folder / "store", uw.Coordinates(directions=64, precision=precision))
    print(store.plan(model, train))
    start = time.process_time()
    store.build(model, train)
    seconds = time.process_time() - start
    print(f"build: {seconds:.1f} CPU s, peak {peak():.0f} MB")
    (folder / "build.txt").write_text(f"{seconds:.1f} –")


def ask(folder: Path, count: int, curvature: str) -> None:
    x, y = np.load(folder / "x.npy", mmap_mode="r"), np.load(folder / "y.npy")
    net = nn.Sequential(nn.Linear(FEATURES, 64), nn.ReLU(), nn.Linear(64, 10))
    net.load_state_dict(torch.load(folder / "net.pt", weights_only=True))
    start = time.process_time()
    model, train = uw.TorchModel(net, cross_entropy), uw.Examples(x, y)
    generator = np.random.default_rng(1)
    chosen = generator.integers(len(x), size=count)
    noise = NOISE * generator.standard_normal((count, FEATURES), dtype=np.float32)
    queries = uw.Examples(x[chosen].astype(np.float32) + noise, y[chosen], ids=[f"q{i}" for i in range(count)])
    print(f"examples: {time.process_time() - start:.1f} CPU s, peak {peak():.0f} MB")
    start = time.process_time()
    recipe = uw.Influence(curvature={"kfac": uw.KFAC(), "ekfac": uw.EKFAC()}[curvature])
    fitted = recipe.fit(model, train, store=uw.Store(folder / "store"))
    opened = time.process_time() - start, peak()
    print(f"fit: {opened[0]:.1f} CPU s, peak {opened[1]:.0f} MB")
    start = time.process_time()
    top = fitted.top(queries, 20)
    asked = time.process_time() - start, peak()
    print(f"top 20 of {count} queries: {asked[0]:.1f} CPU s, peak {asked[1]:.0f} MB")
    few = queries.take(np.arange(2))
    scores = fitted.attribute(few)
    for query in few.ids.tolist():
        assert [a.id for a in top.proponents(query)] == [a.id for a in scores.proponents(query, 20)]
    groups = np.array([f"digit {digit}" for digit in range(10)])[y]
    start = time.process_time()
    summed = fitted.top(few, 20, by=groups).groups
    sums = time.process_time() - start
    np.testing.assert_allclose(summed.values.sum(axis=1), scores.values.sum(axis=1), rtol=1e-6)
    rate = matrix_product()
    bytes_per_row = uw.Store(folder / "store").plan(model, train).bytes_per_row
    table = Table(
        f"{len(x):,} rows of {bytes_per_row} bytes × {count} queries by {curvature.upper()}, top 20",
        "asked in ≤ 5 CPU seconds with < 600 MB, built in ≤ 20 CPU seconds"
        if count <= 256
        else f"bounded memory (a matrix of the scores would be {len(x) * count * 4 / 1e9:.0f} GB)",
        ["step", "CPU seconds", "peak memory, MB"],
    )
    if (folder / "build.txt").exists():
        table.add("build", *(folder / "build.txt").read_text().split())
    table.add("open", f"{opened[0]:.1f}", f"{opened[1]:.0f}")
    table.add(f"top 20 of {count} queries", f"{asked[0]:.1f}", f"{asked[1]:.0f}")
    table.add("top 20 and sums of ten groups, 2 queries", f"{sums:.1f}", f"{peak():.0f}")
    held = queries.x.nbytes + count * 20 * 2 * 16  # ids and scores of 20 proponents and 20 opponents
    table.notes.append(f"The queries and their answers are {held / 1e6:.0f} MB of the peak.")
    table.notes.append(f"A bare product of 256 × 202 with 202 × 1,024 numbers runs at {rate:.0f} GF/s beside it.")
    if curvature == "ekfac":
        table.notes.append(EIGENVALUES)
    keep_table(table)


def matrix_product() -> float:
    left, right = np.ones((256, 202), np.float32), np.ones((202, 1024), np.float32)
    start = time.process_time()
    for _ in range(200):
        left @ right
    seconds = (time.process_time() - start) / 200
    return 2 * left.size * 1024 / seconds / 1e9


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "upweight-benchmarks" / "million")
    parser.add_argument("--curvature", choices=["kfac", "ekfac"], default="kfac")
    parser.add_argument("--precision", choices=["int8", "int4"], default="int8")
    parser.add_argument("--step", choices=["build", "ask"], default=None)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.step != "ask":
        shutil.rmtree(arguments.folder / "store", ignore_errors=True)
        build(arguments.data, arguments.folder, arguments.rows, arguments.precision)
    if arguments.step != "build":
        ask(arguments.folder, arguments.queries, arguments.curvature)


if __name__ == "__main__":
    main()

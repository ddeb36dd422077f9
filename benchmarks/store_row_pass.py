"""What a row of a store costs beyond a plain gradient pass: forward and backward, capture, and encoding.

`python -m benchmarks.store_row_pass --data DIR`, with OMP_NUM_THREADS=1. Processor seconds, medians of passes in turn.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks import nets
from benchmarks.results import Table, keep_table, verdict
from benchmarks.store_quality import class_loss, images, token_loss

import upweight as uw
from upweight.gradients.captured_rows import CapturedRows

BATCH = 256  # of a plain pass


def cases(data: Path) -> dict[str, tuple[uw.TorchModel, uw.Examples, int, float]]:
    """Title → (model, training set, passes, most that rows may cost)."""
    torch.manual_seed(0)
    x, y, *_ = images(data)
    gpt = nets.KINDS["gpt"]
    texts, targets, *_ = nets.texts(data, gpt)
    return {
        "MLP 784-512-256-10, 2,000 digits": (
            uw.TorchModel(nets.KINDS["mlp"].make().eval(), class_loss),
            uw.Examples(x[:2000], y[:2000]),
            5,
            1.3,
        ),
        "GPT (4 blocks, width 128), 256 reviews": (
            uw.TorchModel(gpt.make().eval(), token_loss),
            uw.Examples(texts.numpy(), targets.numpy()),
            3,
            2.5,
        ),
    }


def measure(model: uw.TorchModel, train: uw.Examples, count: int, encoding: uw.Encoding | None = None) -> list[float]:
    """Processor seconds of a plain pass, of one that captures gradients, and of one that encodes rows."""
    network: Any = model.network
    store = uw.Store(Path(tempfile.mkdtemp()) / "store", encoding)
    store.build(model, train)
    builder = store.builder(model, train)
    _ = builder.codes

    def plain() -> None:
        for part in train.batches(BATCH):
            network.net.zero_grad()
            network.loss(network.net, network.batch(part)).sum().backward()

    def captured() -> None:
        for _ in CapturedRows(network, train, "loss").passes(size=builder.header.batch):
            pass

    def encoded() -> None:
        for number in range(builder.header.shards("rows")):
            builder.make("rows", number)

    steps: list[Callable[[], None]] = [plain, captured, encoded]
    seconds = np.empty((count, len(steps)))
    for of_pass in seconds:
        for place, step in enumerate(steps):
            start = time.process_time()
            step()
            of_pass[place] = time.process_time() - start
    return list(np.median(seconds, axis=0))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(
        "Row pass of a store",
        "≤ 1.3 × a plain gradient pass for the MLP, ≤ 2.5 × for the GPT",
        ["net", "plain pass, CPU s", "capture of gradients", "rows encoded", "× plain", ""],
    )
    for title, (model, train, count, most) in cases(arguments.data).items():
        plain, captured, encoded = measure(model, train, count)
        times = encoded / plain
        figures = f"{plain:.3f}", f"{captured:.3f}", f"{encoded:.3f}", f"{times:.2f}"
        table.add(title, *figures, verdict(times <= most))
        print(table.rows[-1], flush=True)
    model, train, *_ = cases(arguments.data)[title]
    seconds = measure(model, train, 1, uw.LowRank(rank=18, precision="int3"))
    table.add(f"{title}, rank 18 in int3", *(f"{value:.3f}" for value in seconds), f"{seconds[2] / seconds[0]:.2f}", "")
    print(table.rows[-1], flush=True)
    table.notes.append(
        f"Medians of 5 passes over the training set (GPT: 3, rank 18: 1); a plain pass takes batches of {BATCH}."
    )
    keep_table(table)


if __name__ == "__main__":
    main()

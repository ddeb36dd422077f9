"""Stores of the task files in examples/: bytes of a row, and how well scores agree with those without a store.

`OMP_NUM_THREADS=1 python -m benchmarks.store_tasks`

LDS is that of retrainings on random halves, where the order of all examples is not kept with a Spearman of .99.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.results import HERE, Table, keep_table
from benchmarks.store_quality import OF_SEQUENCES, half_width, rows_correlation

import upweight as uw

TASKS = ("cnn_task", "transformer_task")
CLOSE = 0.99
HALVES = 100


def halves(task: Any, train_net: Any, loss: Any) -> tuple[Any, Any]:
    """(members (halves, n), measurements after training on each (halves, queries))."""
    generator, n = np.random.default_rng(0), len(task.train)
    members = np.zeros((HALVES, n), dtype=bool)
    for member in members:
        member[generator.choice(n, n // 2, replace=False)] = True
    outputs = []
    for member in members:
        net = train_net(torch.from_numpy(task.train.x[member]))
        with torch.no_grad():
            outputs.append(-loss(net, task.queries).numpy())
    return members, np.array(outputs)


def lds_cells(task: Any, kept: Any, exact: Any) -> list[str]:
    """LDS without a store, and the difference of that with it, paired by queries."""
    script = importlib.import_module("transformer")

    def loss(net: Any, queries: uw.Examples) -> Any:
        return script.token_losses(net, torch.from_numpy(queries.x)).sum(1)

    members, outputs = halves(task, script.train_net, loss)
    own, whole = (rows_correlation(values @ members.T, outputs.T) for values in (kept, exact))
    return [f"{whole.mean():.3f}", f"{(own - whole).mean():+.3f} ± {half_width(own - whole):.3f}"]


def main() -> None:
    agreement = "Spearman with the scores without a store"
    table = Table(
        "Stores of the task files in examples",
        OF_SEQUENCES,
        ["task", "what a new store keeps", "bytes of a row", "of a gradient", agreement, "LDS without", "LDS − that"],
    )
    sys.path.insert(0, str(HERE.parent / "examples"))
    recipe = uw.Influence(curvature=uw.EKFAC())
    for name in TASKS:
        task = importlib.import_module(name)
        with tempfile.TemporaryDirectory() as folder:
            store = uw.Store(Path(folder) / "store")
            plan = store.plan(task.model, task.train)
            kept = recipe.fit(task.model, task.train, store=store).attribute(task.queries).values
        exact = recipe.fit(task.model, task.train).attribute(task.queries).values
        close, share = rows_correlation(kept, exact).mean(), 4 * task.model.network.size / plan.bytes_per_row
        cells = ["–", "–"] if close >= CLOSE else lds_cells(task, kept, exact)
        table.add(f"`{name}.py`", plan.encoding, f"{plan.bytes_per_row:,}", f"1/{share:.0f}", f"{close:.4f}", *cells)
        print(table.rows[-1], flush=True)
    table.notes.append(
        f"Means over all queries of the task. LDS: {HALVES} retrainings on random halves; the difference with the "
        "half-width of its 95 % interval, paired by queries."
    )
    keep_table(table)


if __name__ == "__main__":
    main()

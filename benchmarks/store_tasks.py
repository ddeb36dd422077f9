"""Stores of the task files in examples/: bytes of a row, and how well scores agree with those without a store.

`OMP_NUM_THREADS=1 python -m benchmarks.store_tasks`
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

import numpy as np
from benchmarks.results import HERE, Table, keep_table
from scipy.stats import spearmanr

import upweight as uw

TASKS = ("cnn_task", "transformer_task")
QUERIES = 30


def main() -> None:
    table = Table(
        "Stores of the task files in examples",
        "none was set beforehand",
        ["task", "what a new store keeps", "bytes of a row", "Spearman with the scores without a store"],
    )
    sys.path.insert(0, str(HERE.parent / "examples"))
    recipe = uw.Influence(curvature=uw.EKFAC())
    for name in TASKS:
        task = importlib.import_module(name)
        queries = task.queries.take(np.arange(QUERIES))
        with tempfile.TemporaryDirectory() as folder:
            store = uw.Store(Path(folder) / "store")
            plan = store.plan(task.model, task.train)
            kept = recipe.fit(task.model, task.train, store=store).attribute(queries).values
        exact = recipe.fit(task.model, task.train).attribute(queries).values
        agreement = np.mean([spearmanr(*pair).statistic for pair in zip(kept, exact, strict=True)])
        table.add(f"`{name}.py`", plan.encoding, f"{plan.bytes_per_row:,}", f"{agreement:.4f}")
        print(table.rows[-1], flush=True)
    table.notes.append(f"Mean over the first {QUERIES} queries.")
    keep_table(table)


if __name__ == "__main__":
    main()

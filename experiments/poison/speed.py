"""The time of one search: 2,000 training examples, 100 queries and 10 checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from experiments.poison import backdoors
from experiments.poison.runs import CHECKPOINTS
from experiments.results import Result, Row

import upweight as uw

QUERIES = 100  # all twelve targets among them
LIMIT = 120.0  # wall seconds


def result(folder: Path, **facts: Any) -> Result:
    """Wall and processor seconds of `uw.poisoned` on the backdoor in pictures, with and without removal."""
    attack = backdoors.pictures(folder)
    clean = np.setdiff1d(np.arange(len(attack.queries)), attack.targets)
    chosen = np.concatenate([attack.targets, clean])[:QUERIES]
    queries, rows = attack.queries.take(chosen), []
    start = time.process_time()
    for name, targets in (("the search alone", 0), ("with removal for the three heaviest queries", 3)):
        wall, cpu = time.perf_counter(), time.process_time()
        search = uw.poisoned(attack.model, attack.train, queries, targets=targets)
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        own = set(queries.ids[: len(attack.targets)].tolist()) & set(search.flagged)
        what = f"{name}: wall seconds; processor seconds; targets among the flagged queries"
        ours = f"{seconds[0]:.0f}; {seconds[1]:.0f}; {len(own)} of {len(search.flagged)}"
        rows.append(Row(what, f"≤ {LIMIT:g} s", ours, seconds[0] <= LIMIT))
    sizes = f"{len(attack.train):,} training pictures, {QUERIES} queries, {CHECKPOINTS} checkpoints"
    return Result(rows=rows, settings=f"Backdoor in pictures; {sizes}.", seconds=time.process_time() - start, **facts)

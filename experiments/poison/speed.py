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

QUERIES, TARGETS = 100, 4  # more targets than a tenth of the queries would look usual
LIMIT = 120.0  # seconds


def result(folder: Path, **facts: Any) -> Result:
    """Wall and processor seconds of `uw.poisoned` on the backdoor in pictures, with and without removal."""
    attack = backdoors.pictures(folder)
    clean = np.setdiff1d(np.arange(len(attack.queries)), attack.targets)
    hit = attack.targets[attack.hits(attack.model)][:TARGETS]
    queries, rows = attack.queries.take(np.concatenate([hit, clean])[:QUERIES]), []
    own, start = queries.ids[: len(hit)].tolist(), time.process_time()
    for name, targets in (("the search alone", 0), ("with removal for three of the targets", own[:3])):
        wall, cpu = time.perf_counter(), time.process_time()
        search = uw.poisoned(attack.model, attack.train, queries, targets=targets)
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        found = set(own) & set(search.flagged)
        what = f"{name}: processor seconds (wall seconds, beside other work); targets among the flagged queries"
        ours = f"{seconds[1]:.0f} s ({seconds[0]:.0f} s); {len(found)} of {len(search.flagged)}"
        rows.append(Row(what, f"≤ {LIMIT:g} s", ours, seconds[1] <= LIMIT))
    sizes = f"{len(attack.train):,} training pictures, {QUERIES} queries, {TARGETS} targets, {CHECKPOINTS} checkpoints"
    return Result(rows=rows, settings=f"Backdoor in pictures; {sizes}.", seconds=time.process_time() - start, **facts)

"""Memory over a `datasets.Dataset`: what fit and scores hold, from 1,000 to 100,000 sequences.

python -m benchmarks.dataset_memory
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import transformers
from benchmarks.results import NO_TARGET, Section, Table, verdict, versions

import upweight as uw

SIZES = (1_000, 10_000, 100_000)
LENGTH, VOCABULARY, QUERIES = 32, 60, 2
ALLOWED = 60  # MB more at 100,000 sequences than at 1,000
CURVATURES = {"Identity": uw.Identity(), "EKFAC": uw.EKFAC()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.case:
        print(json.dumps(case(*chosen.case)))
        return
    table = Table(
        "Fit and scores of 2 queries over sequences of 32 tokens in Arrow files",
        f"at 100,000 sequences at most {ALLOWED} MB more of the process's own memory than at 1,000",
        ["method", "sequences", "Arrow MB", "own before MB", "own peak MB", "with mapped files MB", "CPU s", "verdict"],
        notes=[
            "Own memory is RssAnon, sampled after fit and after scores, and VmHWM less the mapped files; pages of the "
            "Arrow files that were read count as mapped files, and the system takes them back when it needs them.",
            "GPT-2 of one block, 16 wide; each row is its own process.",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            save(Path(folder) / str(size), size)
        for method in CURVATURES:
            first = None
            for size in SIZES:
                measured = fresh(Path(folder) / str(size), method)
                first = measured["peak"] if first is None else first
                met = verdict(measured["peak"] - first <= ALLOWED) if size == SIZES[-1] else NO_TARGET
                figures = [f"{measured[name]:.0f}" for name in ("arrow", "before", "peak", "resident", "seconds")]
                table.add(method, f"{size:,}", *figures, met)
    named = versions(["numpy", "torch", "transformers", "datasets", "upweight"])
    Section(
        "dataset rows", "Memory over data sets in Arrow", "python -m benchmarks.dataset_memory", [table], named
    ).keep()


def save(folder: Path, size: int) -> None:
    """Write a data set of random sequences, a row at a time."""

    def rows() -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng(0)
        for _ in range(size):
            yield {"input_ids": rng.integers(1, VOCABULARY, LENGTH).tolist(), "attention_mask": [1] * LENGTH}

    datasets.disable_progress_bars()
    datasets.Dataset.from_generator(rows, cache_dir=str(folder) + "-cache").save_to_disk(folder)


def case(folder: str, method: str) -> dict[str, float]:
    """Memory of this process in MB, and its CPU seconds, for one data set and one curvature."""
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2, n_positions=LENGTH, bos_token_id=0, eos_token_id=0
    )
    transformers.set_seed(0)
    net, rows = transformers.GPT2LMHeadModel(config), datasets.load_from_disk(folder)
    arrow, before = rows.data.nbytes / 1e6, status()["RssAnon"]
    start = time.process_time()
    model, train = uw.hf.causal_lm(net, rows)
    fitted = uw.Influence(curvature=CURVATURES[method]).fit(model, train)
    held = [status()["RssAnon"]]
    fitted.attribute(train.take(np.arange(QUERIES)))
    now = status()
    peak = max(*held, now["RssAnon"], now["VmHWM"] - now["RssFile"])
    seconds = time.process_time() - start
    return {"arrow": arrow, "before": before, "peak": peak, "resident": now["VmHWM"], "seconds": seconds}


def status() -> dict[str, float]:
    """What the system says this process holds, MB."""
    text = Path("/proc/self/status").read_text()
    return {name: int(kilobytes) / 1e3 for name, kilobytes in re.findall(r"(\w+):\s+(\d+) kB", text)}


def fresh(folder: Path, method: str) -> dict[str, float]:
    print(folder.name, method, flush=True)
    command = [sys.executable, "-m", "benchmarks.dataset_memory", "--case", str(folder), method]
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return measured


if __name__ == "__main__":
    main()

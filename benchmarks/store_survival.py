"""Stores and what they survive: builds that are killed at random moments, and files in which one bit was changed.

`python -m benchmarks.store_survival [--kills 50] [--flips 1000]`, with OMP_NUM_THREADS=1; it takes a few minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from benchmarks.results import HERE, Table, keep_table, verdict

import upweight as uw

ENCODINGS = ("coordinates", "int4", "exact")


def killed(encoding: str, kills: int, folder: Path) -> list[str]:
    """Files made, files needed, kills, and whether all stores have the same bytes."""
    paths = [str(HERE.parent / "tests"), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-m", "support.killed_builds", str(folder / encoding), encoding, str(kills)]
    return subprocess.run(run, env=environment, capture_output=True, check=True, text=True).stdout.split()


def refused(folder: Path, flips: int) -> int:
    """How many of these changes of one bit are refused with the name of the file."""
    generator, paths, count = np.random.default_rng(0), sorted(folder.rglob("*.safetensors")), 0
    for _ in range(flips):
        path = paths[generator.integers(len(paths))]
        whole = path.read_bytes()
        content = bytearray(whole)
        content[generator.integers(len(content))] ^= 1 << int(generator.integers(8))
        path.write_bytes(content)
        problems = uw.Store(folder).check()
        count += len(problems) == 1 and str(path.relative_to(folder)) in problems[0]
        path.write_bytes(whole)
    return count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--flips", type=int, default=1000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    table = Table(
        "What a store survives",
        "resumed equals uninterrupted byte for byte, one file per kill is made twice at most; changed bits are refused",
        ["encoding", "kills", "files made beyond those needed", "same bytes", "changed bits refused", ""],
    )
    for encoding in ENCODINGS:
        made, needed, kills, are_equal = killed(encoding, arguments.kills, folder)
        count = refused(folder / encoding, arguments.flips)
        extra = int(made) - int(needed)
        is_met = extra <= int(kills) and are_equal == "True" and count == arguments.flips
        table.add(encoding, kills, str(extra), are_equal, f"{count} of {arguments.flips}", verdict(is_met))
        print(table.rows[-1], flush=True)
    keep_table(table)


if __name__ == "__main__":
    main()

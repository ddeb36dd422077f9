"""Run every benchmark, one after the other, and write RESULTS.md and results.json next to this file.

python -m benchmarks --data DIR [--peers-env DIR] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

NAMES = (  # all others have commands of their own
    *("networks", "metagradients", "retraining", "accuracy", "peers", "coming_from", "speed", "memory", "trees"),
    "tables",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with mnist.npz and sst2.zip; accuracy and peers need none")
    parser.add_argument("--peers-env", type=Path, help="folder for the environment with the other libraries")
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES)
    chosen = parser.parse_args()
    needed = {
        "metagradients": ["--data", chosen.data],
        "networks": ["--data", chosen.data, "--peers-env", chosen.peers_env],
        "retraining": [],
        "accuracy": [],
        "peers": ["--peers-env", chosen.peers_env],
        "coming_from": ["--peers-env", chosen.peers_env],
        "speed": ["--data", chosen.data],
        "memory": ["--data", chosen.data],
        "trees": ["--data", chosen.data],
        "tables": ["--data", chosen.data],
    }
    for name in chosen.only:
        if None in needed[name]:
            print(f"{name} left out: it needs {needed[name][needed[name].index(None) - 1]}", file=sys.stderr)
            continue
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *needed[name]], check=True, env=one_thread())


def one_thread() -> dict[str, str]:
    """An environment with one thread for every library, and the default kernel of the BLAS."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    return inherited | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


if __name__ == "__main__":
    main()

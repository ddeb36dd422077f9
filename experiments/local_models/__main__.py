"""python -m experiments.local_models --data DIR: surrogates on influential training examples beside LIME's."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.results import versions
from experiments.local_models import fidelity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with tables-lime.zip and sst2.zip")
    data = parser.parse_args().data
    start = time.process_time()
    result = fidelity.run(data)
    installed = versions(["numpy", "scipy", "scikit-learn", "lightgbm", "upweight"])
    result = replace(result, seconds=time.process_time() - start, versions=installed)
    print(result.keep(Path(__file__).parent / "results"))


if __name__ == "__main__":
    main()

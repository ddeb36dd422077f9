"""python -m experiments.audit --data DIR: planted and honest predictions under the support audit."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.results import versions
from benchmarks.trees import adult
from experiments.audit import support


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with tables-lime.zip (adult.csv)")
    frame, y = adult(parser.parse_args().data)
    start = time.process_time()
    result = support.run(frame, y)
    installed = versions(["numpy", "scipy", "scikit-learn", "upweight"])
    result = replace(result, seconds=time.process_time() - start, versions=installed)
    print(result.keep(Path(__file__).parent / "results"))


if __name__ == "__main__":
    main()

"""python -m experiments.examples [representer curves fisher] --data DIR: explanations by examples.

The curves need `pip install kmedoids`.
"""

from __future__ import annotations

import argparse
import importlib
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.results import versions
from experiments.results import assemble

PARTS = ("representer", "curves", "fisher")
SECTION = "Explanations by examples: Yeh et al. (2018), Kim et al. (2016), Khanna et al. (2019)"
FOLDER = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=", ".join(PARTS))
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz and cifar10-subset.zip")
    parser.add_argument("--fast", action="store_true", help="less data, nothing is stored: a test that all works")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in options.parts:
        start = time.process_time()
        picture = Path("build") if options.fast else FOLDER
        picture.mkdir(parents=True, exist_ok=True)
        part = importlib.import_module(f"experiments.examples.{name}")
        result = part.reproduce(options.data, options.fast, picture / f"{name}.png")
        print("\n".join(f"  {row.what}: {row.ours} (paper: {row.paper})" for row in result.rows), flush=True)
        if not options.fast:
            replace(
                result,
                section=SECTION,
                name=name,
                command=f"PYTHONPATH=. python -m experiments.examples {name} --data DIR",
                seconds=time.process_time() - start,
                pictures=[f"{name}.png"],
                versions=versions(["numpy", "scipy", "scikit-learn", "torch", "kmedoids", "upweight"]),
            ).keep(FOLDER)
            print(assemble())


if __name__ == "__main__":
    main()

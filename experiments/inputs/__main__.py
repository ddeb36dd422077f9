"""python -m experiments.inputs --data DIR [NAME ...]: parts of inputs, and the same criteria for training examples."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from experiments.inputs import contrast, examples, orderings
from experiments.koh_liang import data
from experiments.results import Result

FOLDER = Path(__file__).parent / "results"
EXPERIMENTS: dict[str, Callable[[Path], Result]] = {
    "contrast": lambda folder: contrast.run(data.mnist(folder), FOLDER),
    "orderings": lambda folder: orderings.run(data.mnist(folder)),
    "examples": lambda folder: examples.run(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(EXPERIMENTS), help=", ".join(EXPERIMENTS))
    parser.add_argument("--data", type=Path, required=True, help="folder with MNIST")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    for name in arguments.names:
        start = time.process_time()
        result = replace(
            EXPERIMENTS[name](arguments.data),
            section="Parts of the input",
            name=name,
            command=f"PYTHONPATH=. python -m experiments.inputs {name} --data DIR",
        )
        print(replace(result, seconds=time.process_time() - start).keep(FOLDER))


if __name__ == "__main__":
    main()

"""python -m experiments.reweighting moons|mnist|cifar|reviews --data DIR: learned weights of unlabelled examples."""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path

from experiments.reweighting import moons, reviews, weighted_pictures

PARTS = {"moons": moons, "reviews": reviews}


def main() -> None:
    warnings.simplefilter("ignore")  # of torch's lazy layer
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("moons", "mnist", "cifar", "reviews"))
    parser.add_argument("--data", type=Path, help="folder with mnist.npz, cifar10-subset.zip and sst2.zip")
    arguments = parser.parse_args()
    start = time.process_time()
    if arguments.part in PARTS:
        part = PARTS[arguments.part]
        result = part.result(part.outcome(arguments.data))
    else:
        numbers = weighted_pictures.outcome(arguments.part, arguments.data)
        result = weighted_pictures.result(arguments.part, numbers)
    result = replace(result, seconds=time.process_time() - start)
    print(result.keep(Path(__file__).parent / "results"))


if __name__ == "__main__":
    main()

"""python -m experiments.recommenders --data DIR: counterfactual sets of recommendations, each retrained."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from benchmarks.results import versions
from experiments.recommenders import ncf, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with movielens100k.zip")
    train = ncf.ratings(parser.parse_args().data)
    torch.set_num_threads(1)
    start = time.process_time()
    result = table.result(train)
    installed = versions(["numpy", "scipy", "torch", "upweight"])
    result = replace(result, seconds=time.process_time() - start, versions=installed)
    print(result.keep(Path(__file__).parent / "results"))


if __name__ == "__main__":
    main()

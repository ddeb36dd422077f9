"""python -m experiments.trees --data DIR [--only sharchilev brophy]: figures of two papers on boosted trees."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.results import versions
from benchmarks.trees import adult
from experiments.trees import brophy, sharchilev

RUNS = {"sharchilev": sharchilev.run, "brophy": brophy.run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with tables-lime.zip (adult.csv)")
    parser.add_argument("--only", nargs="*", choices=RUNS, default=list(RUNS))
    chosen = parser.parse_args()
    frame, y = adult(chosen.data)
    x = frame.apply(lambda c: c.cat.codes if c.dtype == "category" else c).astype(float).to_numpy()
    installed = versions(["numpy", "scipy", "scikit-learn", "lightgbm", "catboost", "upweight"])
    for name in chosen.only:
        start = time.process_time()
        result = RUNS[name](np.ascontiguousarray(x), y)
        result = replace(result, seconds=time.process_time() - start, versions=installed)
        print(result.keep(Path(__file__).parent / "results"))


if __name__ == "__main__":
    main()

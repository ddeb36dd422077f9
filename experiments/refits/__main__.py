"""python -m experiments.refits: whether intervals of budgeted routes hold, and what every estimator costs."""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path

from experiments.refits import coverage, every_estimator

PARTS = {"coverage": coverage.run, "every_estimator": every_estimator.run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="one of the two results; both by default")
    only = parser.parse_args().only
    warnings.simplefilter("ignore")  # of estimators that do not converge
    for name, run in PARTS.items():
        if only in (None, name):
            start = time.process_time()
            result = replace(run(), seconds=time.process_time() - start)
            print(result.keep(Path(__file__).parent / "results"))


if __name__ == "__main__":
    main()

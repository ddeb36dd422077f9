"""Reproduce the figures of Koh & Liang (2017) from the original data.

./run reproduce all --data DIR            every figure: picture, numbers, and its part of experiments/RESULTS.md
./run reproduce fig3 hospital --data DIR  some of the figures
./run reproduce all --data DIR --fast     the same code on less data, into build/reproduce
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from dataclasses import replace
from pathlib import Path

from experiments.koh_liang.data import DataError
from experiments.results import HERE, Result, assemble

FIGURES = (
    "fig1",
    "fig2",
    "fig2_cnn",
    "fig2_cnn_parts",
    "fig3",
    "fig4",
    "fig5",
    "fig5_cifar",
    "fig6",
    "hospital",
    "upweighting",
)
SECTION = "Koh & Liang (2017), Understanding Black-box Predictions via Influence Functions"


def main() -> int:
    """Return 0 if every figure was made, 1 if data for one were missing, which is reported."""
    parser = argparse.ArgumentParser(
        prog="./run reproduce", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", nargs="+", choices=[*FIGURES, "all"], metavar="figure", help=", ".join(FIGURES))
    parser.add_argument("--data", type=Path, required=True, help="folder with the data; what is missing is downloaded")
    parser.add_argument("--fast", action="store_true", help="less data: a test that everything works")
    parser.add_argument("--out", type=Path, help="folder for the results; experiments/ by default")
    options = parser.parse_args()
    out = options.out or (Path("build/reproduce") if options.fast else HERE)
    missing = 0
    for name in FIGURES if "all" in options.figures else dict.fromkeys(options.figures):
        try:
            result = make(name, options.data, options.fast, out / "koh_liang" / "results")
        except DataError as error:
            print(f"{name} left out: {error}", file=sys.stderr)
            missing = 1
            continue
        print(f"{name} ({result.seconds:.0f} s) is in {assemble(out)}", flush=True)
        print("\n".join(f"  {row.what}: {row.ours} (paper: {row.paper})" for row in result.rows), flush=True)
    return missing


def make(name: str, data: Path, fast: bool, folder: Path) -> Result:
    """Make one figure: its picture and its JSON in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = importlib.import_module(f"experiments.koh_liang.{name}")
    start = time.process_time()
    figure_result = figure.reproduce(data, fast, folder / f"{name}.png")
    command = f"./run reproduce {name} --data DIR" + (" --fast" if fast else "")
    result = replace(
        figure_result,
        section=SECTION,
        name=name,
        seconds=round(time.process_time() - start, 2),
        command=command,
        pictures=[f"{name}.png"],
    )
    result.keep(folder)
    return result


if __name__ == "__main__":
    sys.exit(main())

"""What EK-FAC saves, and what its scores lose, if eigenvalues come from a part of the examples.

python -m benchmarks.eigenvalue_part --data DIR        about two minutes of one core
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.layer_costs import losses
from benchmarks.nets import KINDS, train
from benchmarks.networks import spearman
from benchmarks.picture_nets import pictures
from benchmarks.results import Section, Table, versions

import upweight as uw

QUERIES, EPOCHS = 50, 2
ALL = 10**9  # examples: more than there are
CASES = (("narrow", 2_000, (1_000, 250)),)  # task, examples, of which eigenvalues are from


def scored(model: Any, examples: uw.Examples, queries: uw.Examples, part: int) -> tuple[Any, list[float]]:
    """(Scores, CPU seconds of the fit and of the scores)."""
    seconds = []

    def timed(work: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
        return result

    fitted = timed(lambda: uw.Influence(curvature=uw.EKFAC(eigenvalue_examples=part)).fit(model, examples))
    return timed(lambda: fitted.attribute(queries)).values, seconds


def table(data: Path) -> Table:
    result = Table(
        "EK-FAC on CIFAR-10",
        "none was set beforehand",
        ["net", "n", "eigenvalues from", "fit CPU s", f"scores of {QUERIES} CPU s", "Spearman with all"],
    )
    for task, n, parts in CASES:
        kind = KINDS[task]
        x, y, xq, yq, *_ = pictures(data, n, QUERIES)
        model = uw.TorchModel(train(kind, x, y, None, 0, epochs=EPOCHS), losses)
        examples, queries = uw.Examples(x.numpy(), y.numpy()), uw.Examples(xq.numpy(), yq.numpy())
        scored(model, examples.take(np.arange(20)), queries, ALL)  # first calls are not counted
        whole = None
        for part in (ALL, *parts):
            values, (fit, scores) = scored(model, examples, queries, part)
            whole = values if whole is None else whole
            name = kind.title.split(" with ")[0]
            agreement = "" if part == ALL else f"{float(spearman(values, whole)[0]):.4f}"
            result.add(name, f"{n:,}", "all" if part == ALL else f"{part:,}", f"{fit:.1f}", f"{scores:.1f}", agreement)
            print(result.rows[-1], flush=True)
    result.notes = [
        f"The net after {EPOCHS} epochs on the same examples. Each fit runs once, on a machine busy with other work. "
        "Spearman: mean over the queries of the rank correlation of all n scores.",
        "The passes for eigenvalues are about half of the fit, also on ResNet-20 (7.5 of 14.8 CPU seconds for 256 "
        "pictures). Beside retraining: the depthwise net under “Networks: accuracy against cost”, where eigenvalues "
        "from 100 of 500 examples reach the LDS of those from all (.505 and .503).",
    ]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar10-subset.zip")
    data = parser.parse_args().data
    torch.set_num_threads(1)
    command = "OMP_NUM_THREADS=1 python -m benchmarks.eigenvalue_part --data DIR"
    title = "Eigenvalues from a part of the examples"
    Section("eigenvalue part", title, command, [table(data)], versions(["torch", "upweight"])).keep()


if __name__ == "__main__":
    main()

"""Memory: the peak of fit and scores, compared with the features that were in memory before.

python -m benchmarks --only memory --data DIR
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.problems import Problem, mnist, sst2, zipf
from benchmarks.results import Section, Table, verdict
from scipy import sparse

import upweight as uw

MEGA = 1e6
TIMES = 3
PLAIN, FULL = uw.Influence(correction=None), uw.Influence()
PROBLEMS: dict[str, Callable[[Path, int], Problem]] = {
    "MNIST, float64": lambda data, queries: mnist(data, queries, "float64"),
    "MNIST, float32": lambda data, queries: mnist(data, queries, "float32"),
    "SST-2": lambda data, queries: sst2(data, queries=queries),
    "random texts": lambda data, queries: zipf(queries=queries),
}
MANY = 2000  # queries of `top`


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz and sst2.zip")
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.case:
        problem, method, queries = chosen.case
        print(json.dumps(peak(PROBLEMS[problem](chosen.data, int(queries)), method)))
        return
    whole, top = _score_table(), _top_table()
    for name in chosen.problems:
        for method in ("plain", "full"):
            _add_scores(whole, name, method, _fresh(chosen.data, name, method, 500))
        _add_top(top, name, _fresh(chosen.data, name, "top", MANY))
    Section("memory", "Memory: peak use", "python -m benchmarks --only memory --data DIR", [whole, top]).keep()


def peak(problem: Problem, method: str) -> dict[str, Any]:
    """Bytes held at most above what imports and data take, in this process."""
    before = _held()
    train, queries = problem.train, problem.queries
    recipe = FULL if method == "full" else PLAIN
    fitted = recipe.fit(uw.explainable(problem.estimator, train), train)
    fit = _most() - before
    if method == "top":
        fitted.top(queries, k=10)
    else:
        fitted.attribute(queries)
    return {
        "fit": fit,
        "all": _most() - before,
        "features": problem.feature_bytes,
        "output": len(train) * len(queries) * 8,
        "hessian": fitted.diagnostics["parameters"] ** 2 * 8,
        "sparse": bool(sparse.issparse(problem.x)),
    }


def _most() -> int:
    """The most this process ever held; kilobytes on Linux, bytes on macOS."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _held() -> int:
    """What this process holds now, where the system says so: loading may have needed more for a moment."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else _most()


def _fresh(data: Path, problem: str, method: str, queries: int) -> dict[str, Any]:
    print(problem, method, flush=True)
    command = [sys.executable, "-m", "benchmarks.memory", "--data", data, "--case", problem, method, str(queries)]
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return measured


def _score_table() -> Table:
    return Table(
        "Fit and all scores of 500 queries",
        f"dense: less than {TIMES} times the features plus the scores, more than before; sparse: the exact method "
        f"has to hold a dense Hessian, so the peak is given relative to that",
        [
            *("problem", "method", "features MB", "scores MB", "Hessian MB", "peak MB"),
            *("allowed MB", "(peak − scores) / Hessian", "verdict"),
        ],
        notes=[
            "Each row is its own process: ru_maxrss at the end minus what was held after imports and loading.",
            "MB are 10⁶ bytes; features as passed (sparse: data and indices); one copy of them is in memory before "
            "the run.",
        ],
    )


def _add_scores(table: Table, name: str, method: str, measured: dict[str, Any]) -> None:
    allowed = TIMES * measured["features"] + measured["output"]
    dense = not measured["sparse"]
    table.add(
        name,
        method,
        f"{measured['features'] / MEGA:.0f}" if dense else f"{measured['features'] / MEGA:.1f}",
        f"{measured['output'] / MEGA:.0f}",
        f"{measured['hessian'] / MEGA:.0f}",
        f"{measured['all'] / MEGA:.0f}",
        f"{allowed / MEGA:.0f}" if dense else "",
        f"{(measured['all'] - measured['output']) / measured['hessian']:.1f}",
        verdict(measured["all"] < allowed) if dense else "",
    )


def _top_table() -> Table:
    return Table(
        f"`top(k=10)` of {MANY:,} queries, plain first order",
        "what `top` adds to the fit stays under half of the full matrix of scores",
        ["problem", "full matrix MB", "peak of the fit MB", "peak with top MB", "added MB", "verdict"],
    )


def _add_top(table: Table, name: str, measured: dict[str, Any]) -> None:
    added = measured["all"] - measured["fit"]
    cells = [measured["output"], measured["fit"], measured["all"], added]
    table.add(name, *[f"{cell / MEGA:.0f}" for cell in cells], verdict(added < measured["output"] / 2))


if __name__ == "__main__":
    main()

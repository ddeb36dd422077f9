"""Speed: fit and scores compared with the bare matrix products that they need.

python -m benchmarks --only speed --data DIR
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from benchmarks.problems import Problem, mnist, sst2, zipf
from benchmarks.results import Section, Table, verdict
from benchmarks.stopwatch import Timing, time_in_turn
from scipy import sparse
from scipy.linalg import blas, cho_factor, cho_solve, lapack

import upweight as uw

TIMES = 2.0
PLAIN, FULL = uw.Influence(correction=None), uw.Influence()
SAMPLED = 9  # of the K(K+1)/2 blocks of a softmax Hessian, which all cost the same: these represent all of them
CHUNK = 4096
PRODUCTS = ("Cholesky", "solves", "scores")
CORRECTED = ", and those of the leverage correction"
Ways = dict[str, Callable[[], Any]]
Form = list[tuple[str, str, float]]  # part, the way that was timed for it, how often it is needed
Forms = dict[str, Form]
# Where the time goes: a label, and the function whose time (with all that it calls) is reported.
PARTS = {
    "Hessian products": "weighted_gram",
    "Hessian and Cholesky": "_cholesky",
    "to the optimum": "reoptimised",
    "leverages": "leverages",
    "Newton steps": "polish",
    "solves for the queries and scores": "attribute",
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz and sst2.zip")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--problems", nargs="*", default=["mnist", "sst2", "zipf"])
    chosen = parser.parse_args(arguments)
    makers = {"mnist": lambda: mnist(chosen.data), "sst2": lambda: sst2(chosen.data), "zipf": zipf}
    tables = [made for name in chosen.problems for made in measure(makers[name](), chosen.repetitions)]
    command = "python -m benchmarks --only speed --data DIR"
    Section("speed", "Speed: compared with the bare matrix products", command, tables).keep()


def measure(problem: Problem, repetitions: int) -> list[Table]:
    print(problem.name, flush=True)
    bare, forms = dense_products(problem) if isinstance(problem.x, np.ndarray) else sparse_products(problem)
    ours: Ways = {"plain": lambda: scores(problem, PLAIN), "full": lambda: scores(problem, FULL)}
    timings = time_in_turn(ours | bare, repetitions)
    return [ratios(problem, forms, timings), parts(problem)]


def scores(problem: Problem, recipe: uw.Influence) -> Any:
    """From the estimator and the data in memory to the matrix of scores."""
    train, queries = problem.train, problem.queries
    return recipe.fit(uw.explainable(problem.estimator, train), train).attribute(queries)


def dense_products(problem: Problem) -> tuple[Ways, Forms]:
    """Bare products of a softmax in two forms (all K classes; K − 1 differences) and with symmetric products."""
    x = np.hstack([problem.x, np.ones((len(problem.x), 1))])
    a = np.random.default_rng(0).uniform(0.01, 0.25, len(x))
    classes = len(problem.estimator.classes_)

    def gemm() -> None:
        for _ in range(SAMPLED):
            x.T @ (a[:, None] * x)

    def syrk() -> None:
        c = np.zeros((x.shape[1], x.shape[1]), order="F")
        for _ in range(SAMPLED):
            for start in range(0, len(x), CHUNK):
                rows = x[start : start + CHUNK]
                c = blas.dsyrk(1.0, (a[start : start + CHUNK, None] * rows).T, beta=1.0, c=c, lower=1, overwrite_c=1)

    def form(product: str, outputs: int) -> Form:
        rest = [(part, f"{part}, {outputs}", 1.0) for part in PRODUCTS]
        return [("assembly", product, outputs * (outputs + 1) / 2 / SAMPLED), *rest]

    def trmm() -> None:
        triangle = np.asfortranarray(np.triu(x[: x.shape[1]]))
        for _ in range(SAMPLED):
            for start in range(0, len(x), CHUNK):
                rows = x[start : start + CHUNK]
                np.einsum("ij,ji->i", rows, blas.dtrmm(1.0, triangle, rows.T, trans_a=1))

    ways: Ways = {"gemm": gemm, "syrk": syrk, "trmm": trmm}
    for outputs in (classes - 1, classes):
        products = solve_and_score(outputs * x.shape[1], problem)
        ways |= {f"{part}, {outputs}": way for part, way in products.items() if part != "inverse" or outputs < classes}
    least = form("syrk", classes - 1)
    times = classes * (classes - 1) / 2 / SAMPLED
    correction = [("inverse", f"inverse, {classes - 1}", 1.0), ("leverages", "trmm", times)]
    return ways, {
        f", {classes - 1} differences": form("gemm", classes - 1),
        f", {classes} classes": form("gemm", classes),
        f", {classes - 1} differences, symmetric products (dsyrk)": least,
        CORRECTED: least + correction,
    }


def solve_and_score(size: int, problem: Problem) -> Ways:
    """Cholesky, two triangular solves per query, and the product [queries × p][p × n]."""
    rng = np.random.default_rng(0)
    count, cache = len(problem.y_queries), {}
    rows = rng.normal(size=(CHUNK, size))
    vectors = rng.normal(size=(size, count))

    def factor() -> None:
        matrix = np.full((size, size), 1.0 / size, order="F")
        matrix[np.diag_indices(size)] += 1.0
        cache["factor"] = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)

    def product() -> None:
        out = np.empty((len(problem.y), count))
        for start in range(0, len(out), CHUNK):
            np.matmul(rows[: len(out) - start], vectors, out=out[start : start + CHUNK])

    def inverse() -> None:
        lapack.dpotri(cache["factor"][0], lower=1)

    return {
        "Cholesky": factor,
        "inverse": inverse,
        "solves": lambda: cho_solve(cache["factor"], vectors, check_finite=False),
        "scores": product,
    }


def sparse_products(problem: Problem) -> tuple[Ways, Forms]:
    """Bare products of one sparse logistic regression."""
    x = sparse.hstack([problem.x, np.ones((problem.x.shape[0], 1))]).tocsr()
    a = np.random.default_rng(0).uniform(0.01, 0.25, x.shape[0])
    vectors = np.random.default_rng(0).normal(size=(x.shape[1], len(problem.y_queries)))

    def product() -> Any:
        return (x.T @ x.multiply(a[:, None]).tocsr()).toarray()

    ways = {"assembly": product, **solve_and_score(x.shape[1], problem), "scores": lambda: x @ vectors}
    plain = [(part, part, 1.0) for part in ("assembly", *PRODUCTS)]
    return ways, {"": plain, CORRECTED: [*plain, ("inverse", "inverse", 1.0)]}


def ratios(problem: Problem, forms: Forms, timings: dict[str, Timing]) -> Table:
    x, m = problem.x, len(problem.y_queries)
    inside = f", {x.nnz / x.shape[0]:.0f} nonzeros a row" if sparse.issparse(x) else ""
    classes = len(problem.estimator.classes_)
    table = Table(
        f"{problem.name}: {x.shape[0]:,} × {x.shape[1]:,}{inside}, {classes} classes; {m} queries × all examples",
        f"plain first order at most {TIMES:g} times the bare products, the full method at most {TIMES:g} times plain",
        ["what", "CPU s", "wall s", "CPU ratio", "of", "verdict"],
    )
    table.rows.append(["**upweight, plain** (`correction=None`)", *timings["plain"].typical, "", "", ""])
    for number, (name, form) in enumerate(forms.items()):
        cpu, wall = _sums(form, timings, "cpu"), _sums(form, timings, "wall")
        mine = "full" if name == CORRECTED else "plain"
        slow = median(p / b for p, b in zip(timings[mine].cpu, cpu, strict=True))
        detail = ", ".join(f"{part} {median(timings[way].cpu) * times:.2f}" for part, way, times in form)
        mark = verdict(slow <= TIMES) if number == 0 else ""
        table.add(f"bare products{name}: {detail}", median(cpu), median(wall), f"{slow:.2f}", f"{mine} / this", mark)
    slow = median(f / p for f, p in zip(timings["full"].cpu, timings["plain"].cpu, strict=True))
    cells = [*timings["full"].typical, f"{slow:.2f}", "this / plain", verdict(slow <= TIMES)]
    table.add("**upweight, full** (leverage correction and Newton steps)", *cells)
    table.notes.append(
        f"{len(timings['plain'].cpu)} rounds. upweight: from estimator and data in memory to the matrix of scores."
    )
    if not sparse.issparse(x):
        table.notes.append(
            f"Assembly: `X.T @ (a * X)` for the K(K+1)/2 blocks, {SAMPLED} of them timed for all. The target counts in "
            "upweight's own form (K − 1 differences), the cheaper one."
        )
    return table


def _sums(form: Form, timings: dict[str, Timing], clock: str) -> list[float]:
    """Seconds of all parts together, round by round."""
    parts = [[seconds * times for seconds in getattr(timings[way], clock)] for _, way, times in form]
    return [sum(together) for together in zip(*parts, strict=True)]


def parts(problem: Problem) -> Table:
    """Where the time goes, by one profiled run each."""
    seconds = {}
    for name, recipe in (("plain", PLAIN), ("full", FULL)):
        profile = cProfile.Profile(time.process_time)
        profile.runcall(scores, problem, recipe)
        stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
        spent = {f[2]: cumulative for f, (*_, cumulative, _) in stats.items() if "upweight" in f[0]}
        seconds[name] = [spent.get(function, 0.0) for function in PARTS.values()] + [spent.get("scores", 0.0)]
        seconds[name][-1] = max(cumulative for *_, cumulative, _ in stats.values())
    table = Table(f"{problem.name}: where the time goes", "none", ["part", "plain, CPU s", "full, CPU s"])
    for part, plain, full in zip([*PARTS, "all"], seconds["plain"], seconds["full"], strict=True):
        table.add(part, plain, full)
    table.notes.append("One profiled run each. If the model is far from its optimum, a second Hessian is assembled.")
    return table


if __name__ == "__main__":
    main()

"""Forgetting 1 % of 20,000 rows of 100 columns, compared with scikit-learn's own refit from nothing, in one run.

`python -m benchmarks.forgetting`, with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from benchmarks.results import Section, Table, verdict
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import upweight as uw

ROWS, COLUMNS, FORGOTTEN, ROUNDS = 20_000, 100, 200, 5
FACTORS = 10  # common factors behind the columns
NAMES = ("columns", "estimator")
COMMAND = "python -m benchmarks.forgetting"


def main() -> None:
    warnings.simplefilter("ignore")
    table = Table(
        f"{FORGOTTEN} of {ROWS:,} × {COLUMNS} rows: uw.forget compared with a refit",
        "under a tenth of the CPU seconds of a refit, probabilities within 1e-8 of the optimum",
        [*NAMES, "refit s", "refit's error", "forget s", "later s", "÷ refit", "later ÷ refit", "error", ""],
    )
    for columns, is_related in (("related, of unlike scale", True), ("independent, of one scale", False)):
        x, y = made(is_related)
        for name, estimator in estimators().items():
            table.add(columns, name, *measured(estimator, x, y))
    table.notes = [
        "Errors: largest difference of a probability from those of scikit-learn's newton-cholesky at tol 1e-14.",
        "forget is the whole call with its certificate; later calls reuse the curvature of the first.",
        "Both read the training set in every iteration. L-BFGS needs hundreds of iterations on related columns and a "
        "dozen on independent ones, where nothing can be saved. The scaler has to be fitted by both.",
    ]
    title = "Forgetting"
    Section("forgetting", title, COMMAND, [table]).keep()
    print(table.markdown())


def made(is_related: bool) -> tuple[Any, Any]:
    """A table of classes of two; related columns share ten factors and have scales between 1/10 and 10."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, COLUMNS))
    if is_related:
        x = rng.normal(size=(ROWS, FACTORS)) @ rng.normal(size=(FACTORS, COLUMNS)) + 0.3 * x
        x *= np.exp(rng.normal(size=COLUMNS))
    signal = x @ (rng.normal(size=COLUMNS) / x.std(axis=0) / 5)
    return x, (signal + rng.logistic(size=ROWS) > 0).astype(int)


def estimators() -> dict[str, Any]:
    """A default solver that goes to its optimum, the fastest one, and a pipeline."""
    default = LogisticRegression(tol=1e-10, max_iter=100_000)
    return {
        "L-BFGS (default)": default,
        "scaler, L-BFGS": make_pipeline(StandardScaler(), default),
        "newton-cholesky": LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=1000),
    }


def measured(estimator: Any, x: Any, y: Any) -> list[Any]:
    """The figures of one row."""
    train, ids = uw.Examples(x, y), np.random.default_rng(1).choice(ROWS, FORGOTTEN, replace=False)
    remaining = np.setdiff1d(np.arange(ROWS), ids)
    best = clone(estimator).set_params(**settings(estimator)).fit(x[remaining], y[remaining]).predict_proba(x)
    fitted = clone(estimator).fit(x, y)
    refits, firsts, laters = [], [], []
    for _ in range(ROUNDS):
        seconds, refit = timed(lambda: clone(estimator).fit(x[remaining], y[remaining]))
        refits.append(seconds)
        model = uw.explainable(fitted, train)
        seconds, result = timed(lambda model=model: uw.forget(model, train, ids))  # type: ignore[misc]
        firsts.append(seconds)
        laters.append(timed(lambda model=model: uw.forget(model, train, ids))[0])  # type: ignore[misc]
    errors = [float(np.abs(one.predict_proba(x) - best).max()) for one in (refit, result.estimator)]
    whole, first, later = median(refits), median(firsts), median(laters)
    is_met = later / whole < 0.1 and first / whole < 0.1 and errors[1] < 1e-8
    ratios = [f"{first / whole:.3f}", f"{later / whole:.3f}"]
    return [whole, f"{errors[0]:.0e}", first, later, *ratios, f"{errors[1]:.0e}", verdict(is_met)]


def settings(estimator: Any) -> dict[str, Any]:
    """Of the fit that stands for the optimum."""
    prefix = "logisticregression__" if hasattr(estimator, "steps") else ""
    return {f"{prefix}solver": "newton-cholesky", f"{prefix}tol": 1e-14, f"{prefix}max_iter": 1000}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """(CPU seconds of this process, what the work returns)."""
    start = time.process_time()
    answer = work()
    return time.process_time() - start, answer


if __name__ == "__main__":
    main()

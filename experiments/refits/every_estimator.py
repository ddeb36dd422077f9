"""Every classifier and regressor of scikit-learn: which are answered by default, how, in which time, at which cost."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from experiments.results import Result, Row

import upweight as uw

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

MAX_SECONDS = 40.0


def answer(estimator: Any, train: uw.Examples, queries: uw.Examples) -> dict[str, Any]:
    """How the estimator is answered by default, with seconds, trainings, and what n + 1 refits would take."""
    start = time.perf_counter()
    try:
        model = uw.explainable(estimator, train)
        scores = uw.explain(model, train, queries, removals=0).scores
    except (ValueError, TypeError) as error:
        return {"refused": str(error), "seconds": time.perf_counter() - start}
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    uw.refittable(estimator, train).retrain(train, np.ones(len(train)))
    one = time.perf_counter() - start
    return {
        "method": str(scores.recipe["method"]),
        "seconds": seconds,
        "scored": int(np.isfinite(scores.values).all(axis=0).sum()),
        "trainings": int(scores.diagnostics.get("trainings", 0)),
        "brute_force": one * (len(train) + 1),
        "is_budgeted": isinstance(model, uw.Refittable),
    }


def run() -> Result:
    """The shares of estimators that are answered, by exact and by budgeted routes."""
    from support import every_estimator as estimators

    answers: dict[str, dict[str, Any]] = {}
    for kind in estimators.KINDS:
        for name in estimators.names(kind):
            answers[name] = answer(*estimators.fitted(name, kind))
            print(name, answers[name], flush=True)
    good = {name: a for name, a in answers.items() if "refused" not in a and a["seconds"] <= MAX_SECONDS}
    exact = {name: a for name, a in good.items() if not a["is_budgeted"]}
    budgeted = {name: a for name, a in good.items() if a["is_budgeted"]}
    complete = {name: a for name, a in budgeted.items() if a["scored"] == estimators.ROWS}
    total = len(answers)
    costs = [_ratio(exact), _ratio(complete)]
    slowest = max(answers.items(), key=lambda item: item[1]["seconds"])
    missing = [f"{name}: {a.get('refused', 'too slow')}" for name, a in answers.items() if name not in good]
    return Result(
        title="Every classifier and regressor of scikit-learn",
        claim="At least 90 % are answered by default within 40 s on 120 rows.",
        rows=[
            Row("answered within 40 s", "–", f"{len(good)} of {total}", len(good) >= 0.9 * total),
            Row("by a route that uses what is inside", "–", f"{len(exact)} of {total}"),
            Row("by refits within a budget", "–", f"{len(budgeted)} of {total}"),
            Row("of these, every example was left out", "–", f"{len(complete)} of {len(budgeted)}"),
            Row("slowest answer", "–", f"{slowest[1]['seconds']:.0f} s ({slowest[0]})"),
            Row("time of n + 1 refits ÷ time of the answer, routes that look inside (median)", "–", f"{costs[0]:.1f}"),
            Row("the same, refits of every example (median)", "–", f"{costs[1]:.2f}"),
        ],
        settings=(
            f"scikit-learn's all_estimators(), default settings where there are any; {estimators.ROWS} rows, 6 "
            f"columns, {estimators.QUERIES} queries; "
            "uw.explain(uw.explainable(estimator, train), train, queries, removals=0)"
        ),
        section="Scores from refits: any estimator of scikit-learn",
        name="every_estimator",
        command="python -m experiments.refits --only every_estimator",
        notes=[*missing, "Seconds are of the wall clock, on a machine shared with other work."],
        numbers={"answers": answers},
    )


def _ratio(answers: dict[str, dict[str, Any]]) -> float:
    return float(np.median([a["brute_force"] / a["seconds"] for a in answers.values()])) if answers else float("nan")

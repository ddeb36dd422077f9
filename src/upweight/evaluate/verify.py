"""verify: train again without some examples and hold the scores against what happens."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples, Id
from upweight.core.model import Differentiable, Retrainable, require
from upweight.core.scores import Scores
from upweight.evaluate.check import Check
from upweight.evaluate.removals import named, strongest
from upweight.evaluate.resume import retrain_truth
from upweight.evaluate.retrain import Progress
from upweight.evaluate.truth import Truth

__all__ = ["Check", "checked", "verify"]

Array = NDArray[np.float64]
DRIFT = 0.05  # share of a typical effect that retraining on everything may change before the reader is told


def verify(  # noqa: PLR0913 - five that everyone passes, five by keyword
    model: Any,
    train: Examples,
    queries: Examples,
    scores: Scores,
    removals: int | Mapping[str, Sequence[Id]] = 16,
    *,
    processes: int | None = None,
    seed: int = 0,
    seeds: int = 1,
    path: str | Path | None = None,
    progress: Progress | None = None,
) -> Check:
    """Hold scores against real retraining.

    Args:
        model, train: as handed to `fit`.
        queries: as handed to `attribute`.
        scores: what to verify; columns are train ids, or names of `removals` (from `fitted.remove`).
        removals: how many (half of them the strongest proponents and opponents one by one, half random groups of 1, 5
            and 10 % of the training set), or which: name → train ids. Of those chosen here, one that the model cannot
            be trained without (a class goes with it) is left out and named in the warnings; one of yours is an error.
        processes: refits at a time; all processors where it is left out.
        seed: for the random groups alone; trainings begin with seed 0, so that what differs is what was removed.
        seeds: trainings per removal, with seeds 0, 1, …, for a training that depends on them.
        path: a file for the retrained measurements, from which a run that was broken off goes on.

    Raises:
        ValueError: scores of other queries or other training examples.
    """
    require(model, [Retrainable], "verify")
    if scores.query_ids.tolist() != queries.ids.tolist():
        raise ValueError("expected scores of exactly these queries, in this order; call attribute(queries) again")
    if seeds < 1:
        raise ValueError(f"expected at least one seed, got {seeds}")
    ours = isinstance(removals, int)
    chosen = strongest(scores, train, removals, seed) if isinstance(removals, int) else named(removals)
    start = time.perf_counter()
    truth = retrain_truth(
        model, train, queries, chosen, seeds=seeds, processes=processes, path=path, strict=not ours, progress=progress
    )
    return checked(scores, truth, model, train, queries, time.perf_counter() - start)


def checked(
    scores: Scores, truth: Truth, model: Any, train: Examples, queries: Examples, seconds: float | None = None
) -> Check:
    """The check of these scores against a truth that is there already."""
    truth.require(model, train, queries)
    found = _optimum(model, train, queries, truth)
    diagnostics = {
        "refits": (len(truth.removals) + 1) * len(truth.seeds),
        **({} if seconds is None else {"seconds": round(seconds, 3)}),
        "seeds": list(truth.seeds),
        "seed_noise": truth.facts["seed_noise"],
        **found,
        "warnings": [*found["warnings"], *truth.warnings],
    }
    return Check(truth.predicted(scores), truth.actual, queries.ids, truth.removals, scores, diagnostics, truth)


def _optimum(model: Any, train: Examples, queries: Examples, truth: Truth) -> dict[str, Any]:
    """Whether training on everything gives back the model that was handed in: the most common silent error."""
    drift = float(np.abs(truth.base[0] - model.measure(queries)).max())
    typical = float(np.median(np.abs(truth.actual).max(axis=0)))
    warnings = []
    norm = model.gradient_norm(train) if isinstance(model, Differentiable) else None
    if drift > DRIFT * typical:
        known = "" if norm is None else f" (gradient norm {norm:.2g} of what random data would leave)"
        warnings.append(
            f"The model handed in is not at its optimum on the data handed in{known}: training it again on everything "
            f"changes the measurement by up to {drift:.2g}, a typical removal by {typical:.2g}. Lower tol or raise "
            "max_iter, or check that these are the data it was fitted on."
        )
    return {"gradient_norm": norm, "drift": drift, "warnings": warnings}

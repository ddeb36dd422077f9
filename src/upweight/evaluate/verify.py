"""verify: train again without some examples and hold the scores against what happens."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from upweight.core.examples import Examples, Id
from upweight.core.model import Retrainable, require
from upweight.core.scores import Scores
from upweight.core.weights import own_weights
from upweight.evaluate.check import Check
from upweight.evaluate.removals import Removal, named, strongest
from upweight.evaluate.retrain import How, Progress
from upweight.evaluate.retrain_truth import retrain_truth
from upweight.evaluate.truth import Truth

__all__ = ["Check", "checked", "verify"]


def verify(  # noqa: PLR0913 - five that everyone passes, the rest by keyword
    model: Any,
    train: Examples,
    queries: Examples,
    scores: Scores,
    removals: int | Mapping[str, Sequence[Id]] = 16,
    *,
    processes: int | None = None,
    seed: int = 0,
    seeds: int = 1,
    progress: Progress | None = None,
    how: How | None = None,
    folder: str | Path | None = None,
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
        progress: called with (refits done, of how many).
        how, folder: as in `retrain`; a call that was broken off goes on from what its folder holds.

    Raises:
        ValueError: scores of other queries or other training examples.
    """
    require(model, [Retrainable], "verify", train, queries)
    if scores.query_ids.tolist() != queries.ids.tolist():
        raise ValueError("expected scores of exactly these queries, in this order; call attribute(queries) again")
    if seeds < 1:
        raise ValueError(f"expected at least one seed, got {seeds}")
    ours = isinstance(removals, int)
    chosen = strongest(scores, train, removals, seed) if isinstance(removals, int) else named(removals)
    start = time.perf_counter()
    truth = retrain_truth(
        model,
        train,
        queries,
        chosen,
        seeds=seeds,
        processes=processes,
        strict=not ours,
        progress=progress,
        how=how,
        folder=folder,
    )
    return checked(scores, truth, model, train, queries, time.perf_counter() - start)


def checked(
    scores: Scores, truth: Truth, model: Any, train: Examples, queries: Examples, seconds: float | None = None
) -> Check:
    """The check of these scores against a truth that is there already."""
    truth.require(model, train, queries)
    found = {k: v for k, v in truth.facts.get("reproduction", {}).items() if k != "warnings"}
    diagnostics = {
        "refits": (len(truth.removals) + 1) * len(truth.seeds),
        **({} if seconds is None else {"seconds": round(seconds, 3)}),
        "seeds": list(truth.seeds),
        "seed_noise": truth.facts["seed_noise"],
        **found,
        "warnings": [*truth.warnings, *_lost_classes(train, truth.removals)],
    }
    return Check(truth.predicted(scores), truth.actual, queries.ids, truth.removals, scores, diagnostics, truth)


def _lost_classes(train: Examples, chosen: Sequence[Removal]) -> list[str]:
    """Removals after which a class has no example left: what a net says of that class then is where it began."""
    if train.y is None or train.y.ndim != 1 or train.y.dtype.kind == "f":
        return []
    classes, places = np.unique(train.y, return_inverse=True)
    own = own_weights(train)
    there = np.bincount(places, own) > 0
    found = []
    for removal in chosen:
        weights = own.copy()
        weights[train.positions(removal.ids)] = 0.0
        lost = there & (np.bincount(places, weights) == 0)
        if lost.any():
            label = classes.tolist()[int(np.argmax(lost))]
            found.append(f"Without {removal.name!r} no example of class {train.labels.get(label, label)!r} is left.")
    return found

"""verify: train again without some examples and hold the scores against what happens."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from upweight.core.deprecation import accept_old_keywords
from upweight.core.examples import Examples, Id
from upweight.core.model import Measurable, Retrainable, require
from upweight.core.scores import Scores
from upweight.core.weights import sample_weights
from upweight.evaluate.removals import Removal, default_removals, named_removals
from upweight.evaluate.retrain_truth import retrain_truth
from upweight.evaluate.truth import Truth
from upweight.evaluate.verification import Check
from upweight.retraining import deprecated_keywords
from upweight.retraining.retraining import Retraining

__all__ = ["Check", "check_against_truth", "verify"]


@accept_old_keywords(deprecated_keywords.KEYWORDS, deprecated_keywords.retraining_builder())
def verify(
    model: Measurable,
    train: Examples,
    queries: Examples,
    scores: Scores,
    removals: int | Mapping[str, Sequence[Id]] = 16,
    *,
    seed: int = 0,
    retraining: Retraining | None = None,
) -> Check:
    """Hold scores against real retraining.

    Args:
        model, train: as handed to `fit`.
        queries: as handed to `attribute`.
        scores: what to verify; columns are train ids, or names of `removals` (from `fitted.remove`).
        removals: how many (half of them the strongest proponents and opponents one by one, half random groups of 1, 5
            and 10 % of the training set), or which: name → train ids. Of those chosen here, one that the model cannot
            be trained without (a class goes with it) is left out and named in the warnings; one of yours is an error.
        seed: for the random groups alone.
        retraining: where and how, and how many trainings per removal for a training that depends on its seed; None
            for all processors and seed 0, so that what differs is what was removed.

    Raises:
        ValueError: scores of other queries or other training examples.
    """
    require(model, [Retrainable], "verify", train, queries)
    scores.require_queries(queries)
    ours = isinstance(removals, int)
    chosen = default_removals(scores, train, removals, seed) if isinstance(removals, int) else named_removals(removals)
    start = time.perf_counter()
    truth = retrain_truth(model, train, queries, chosen, strict=not ours, retraining=retraining)
    return _check(scores, truth, train, time.perf_counter() - start)


def check_against_truth(
    scores: Scores, truth: Truth, model: Any, train: Examples, queries: Examples, seconds: float | None = None
) -> Check:
    """The check of these scores against a truth that is there already."""
    truth.require(model, train, queries)
    return _check(scores, truth, train, seconds)


def _check(scores: Scores, truth: Truth, train: Examples, seconds: float | None) -> Check:
    found = {k: v for k, v in truth.facts.get("reproduction", {}).items() if k != "warnings"}
    diagnostics = {
        "trainings": (len(truth.removals) + 1) * len(truth.seeds),
        **({} if seconds is None else {"seconds": round(seconds, 3)}),
        "seeds": list(truth.seeds),
        "seed_noise": truth.facts["seed_noise"],
        **found,
        "warnings": [*truth.warnings, *_lost_classes(train, truth.removals)],
    }
    return Check(truth.predicted(scores), truth.actual, truth.query_ids, truth.removals, scores, diagnostics, truth)


def _lost_classes(train: Examples, chosen: Sequence[Removal]) -> list[str]:
    """Removals after which a class has no example left: what a net says of that class then is where it began."""
    if train.y is None or train.y.ndim != 1 or train.y.dtype.kind == "f":
        return []
    classes, places = np.unique(train.y, return_inverse=True)
    own = sample_weights(train)
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

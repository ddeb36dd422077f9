"""Verification of scores: retrain without some examples, and compare the scores with the actual effects."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from upweight.core.capability_checks import require
from upweight.core.deprecation import accept_old_keywords
from upweight.core.examples import Examples, Id
from upweight.core.model import Measurable, Retrainable
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
    """Compare scores with retraining.

    Args:
        model, train: those passed to `fit`.
        queries: those passed to `attribute`.
        scores: what to verify; columns are train ids, or names of `removals` (from `fitted.remove`).
        removals: how many, half of them the strongest proponents and opponents one by one, half random groups of 1, 5
            and 10 % of the training set; or which, as name → train ids. If the model cannot be trained without one of
            them (because a class has no example left), a removal chosen here is left out and named in the warnings,
            and a removal of yours is an error.
        seed: for the random groups alone.
        retraining: where and how, and with how many seeds if the training depends on its seed; None for all processors
            and seed 0, so that trainings differ only by what was removed.

    Raises:
        ValueError: scores of other queries or other training examples.
    """
    require(model, [Retrainable], "verify", train, queries)
    scores.require_queries(queries)
    chosen = default_removals(scores, train, removals, seed) if isinstance(removals, int) else named_removals(removals)
    start = time.perf_counter()
    strict = not isinstance(removals, int)
    truth = retrain_truth(model, train, queries, chosen, strict=strict, retraining=retraining)
    return _check(scores, truth, train, time.perf_counter() - start)


def check_against_truth(
    scores: Scores, truth: Truth, model: Any, train: Examples, queries: Examples, seconds: float | None = None
) -> Check:
    """Compare scores with a truth that exists already."""
    truth.require(model, train, queries)
    return _check(scores, truth, train, seconds)


def _check(scores: Scores, truth: Truth, train: Examples, seconds: float | None) -> Check:
    reproduction = {k: v for k, v in truth.facts.get("reproduction", {}).items() if k != "warnings"}
    diagnostics = {
        "trainings": (len(truth.removals) + 1) * len(truth.seeds),
        **({} if seconds is None else {"seconds": round(seconds, 3)}),
        "seeds": list(truth.seeds),
        "seed_noise": truth.facts["seed_noise"],
        **reproduction,
        "warnings": [*truth.warnings, *_lost_classes(train, truth.removals)],
    }
    return Check(truth.predicted(scores), truth.actual, truth.query_ids, truth.removals, scores, diagnostics, truth)


def _lost_classes(train: Examples, chosen: Sequence[Removal]) -> list[str]:
    """A warning for every removal after which a class has no example left, so that a net cannot learn that class."""
    if train.y is None or train.y.ndim != 1 or train.y.dtype.kind == "f":
        return []
    classes, class_of = np.unique(train.y, return_inverse=True)
    all_weights = sample_weights(train)
    is_present = np.bincount(class_of, all_weights) > 0
    warnings = []
    for removal in chosen:
        weights = all_weights.copy()
        weights[train.positions(removal.ids)] = 0.0
        is_lost = is_present & (np.bincount(class_of, weights) == 0)
        if is_lost.any():
            label = classes.tolist()[int(np.argmax(is_lost))]
            warnings.append(f"Without {removal.name!r} no example of class {train.labels.get(label, label)!r} is left.")
    return warnings

"""The usual support: that of training examples, each attributed as if it were a query."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from upweight.applications.audit_results import UNKNOWN
from upweight.applications.explain import Explanation
from upweight.applications.support import Ground, Support, supports_of
from upweight.applications.support_checks import Reference, checks_by_chance, tails_of
from upweight.applications.supported_labels import scores_of, supported
from upweight.core.blocks import blocks
from upweight.core.model import Retrainable
from upweight.core.replayable import Replayable

Positions = NDArray[np.intp]
MAX_SCORES = 20_000_000  # scores in memory at a time


def reference_of(explained: Explanation, ground: Ground, count: int) -> tuple[Reference | None, list[str]]:
    """(the support of `count` training examples drawn at random, warnings).

    Each is attributed like a query, and is not among its own proponents. None without a fitted method, or for one that
    retrains.
    """
    fitted, why = explained.fitted, ""
    if count == 0:
        return None, []
    if fitted is None:
        why = "the fitted method is not known"
    elif {Retrainable, Replayable} & set(type(fitted.recipe).needs):
        why = f"scores of training examples by {type(fitted.recipe).__name__} take many trainings"
    if fitted is None or why:
        return None, [f"What support is usual is known from the other queries alone, because {why}."]
    chosen = np.sort(np.random.default_rng(0).choice(ground.present, min(count, len(ground.present)), replace=False))
    supports: list[Support] = []
    for block in blocks(len(chosen), max(1, MAX_SCORES // len(explained.train))):
        supports += _supports_of_training(explained, ground, chosen[block])
    labels = [support.label for support in supports]
    return Reference(tails_of(checks_by_chance(ground, supports)), labels), []


def _supports_of_training(explained: Explanation, ground: Ground, positions: Positions) -> list[Support]:
    """The support of these training examples by the others."""
    assert explained.fitted is not None
    examples = explained.train.take(positions)
    attributed = replace(explained, scores=scores_of(explained.fitted, examples), queries=examples, check=None)
    labels, values, _ = supported(attributed)
    values[np.arange(len(positions)), positions] = 0.0
    own_groups = [
        column.train[positions] if column.knows_queries else np.full(len(positions), UNKNOWN)
        for column in ground.columns
    ]
    rows = None if ground.space is None else ground.space.of_training(positions)
    return supports_of(ground, values, labels, np.array(own_groups, dtype=np.intp).reshape(-1, len(positions)), rows)

"""The upper tails of queries' influences: how far the strongest training examples stand out from the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.nearest_copies import equal_rows
from upweight.applications.robust_scale import robust_z
from upweight.core.attributor import Fitted
from upweight.core.blocks import blocks
from upweight.core.examples import Examples
from upweight.core.progress import Progress
from upweight.core.weights import example_counts, sample_weights

Array = NDArray[np.float64]
MAX_HELD_SCORES = 20_000_000  # scores in memory at a time
MIN_CLASS = 10  # training examples of a label, below which the spread of their influences means nothing
MIN_QUERIES = 40  # queries from which their usual heaviness can be estimated
MEDIAN, UPPER, EXTREME = 0.5, 0.9, 0.97  # quantiles: their distances give the scales of the tail of the heaviness
MIN_EXTREMES = 3  # queries above the last of them, from which it says anything


@dataclass(frozen=True, eq=False)
class Tails:
    """The upper tails of the influences of some queries.

    Attributes:
        heaviness: (m,), the k-th largest z-value of every query; 0 if its label has too few training examples.
        z: position of a query → z-values of all training examples (n,); −∞ for training examples of other labels or of
            weight 0, and for the query itself. Empty if they are too many to be held.
        equal: positions of queries that are in the training set.
        rare: labels with too few training examples.
        warnings: of the scores.
        is_complete: whether `z` has all queries of other labels.
    """

    heaviness: Array
    z: dict[int, Array]
    equal: list[int]
    rare: list[Any]
    warnings: list[str]
    is_complete: bool


def tails_of(
    fitted: Fitted[Any, Any], queries: Examples, own_labels: NDArray[Any] | None, k: int, report: Progress
) -> Tails:
    """The tails of queries that are labelled as the model predicts them.

    Influences are compared within the training examples of the predicted label, because attacking examples carry the
    label that the attack aims at.

    Args:
        fitted: the fitted method.
        queries: with their predicted labels.
        own_labels: (m,), those that the queries came with; None without labels. A training example with the inputs of
            a query is the query itself. If its label is another one, it may be an attacking example, and stays.
        k: the rank of the z-value that is the heaviness.
        report: progress.
    """
    train = fitted.train
    assert train.y is not None and queries.y is not None
    counts = example_counts(sample_weights(train)).astype(np.intp)
    equal = {
        place: [i for i in same if own_labels is None or train.y[i] == own_labels[place]]
        for place, same in _equal(train, queries, np.flatnonzero(counts)).items()
    }
    heaviness, z_values, rare = np.zeros(len(queries)), dict[int, Array](), dict[Any, None]()
    warnings = dict[str, None]()
    can_hold = len(queries) * len(train) <= MAX_HELD_SCORES
    report("attribute", 0, len(queries))
    for block in blocks(len(queries), max(1, MAX_HELD_SCORES // len(train))):
        rows = np.arange(block.start, block.stop)
        scores = fitted.attribute(queries.take(rows))
        warnings |= dict.fromkeys(map(str, scores.diagnostics.get("warnings", ())))
        for place, row in zip(rows.tolist(), scores.values, strict=True):
            compared = (train.y == queries.y[place]) & (counts > 0)
            compared[equal.get(place, [])] = False
            if counts[compared].sum() < max(MIN_CLASS, k):
                rare[queries.y[place].item()] = None
                continue
            z = _z_values(row, counts, compared)
            heaviness[place] = max(0.0, _kth_largest(z, counts, k))
            if can_hold:
                z_values[place] = z
        report("attribute", block.stop, len(queries))
    in_training = sorted(place for place, same in equal.items() if same)
    return Tails(heaviness, z_values, in_training, list(rare), list(warnings), can_hold)


def tail_probabilities(heaviness: Array, clean: Array | None) -> Array:
    """The probability that a clean query is at least as heavy, (m,); NaN if it cannot be estimated.

    With the heaviness of clean queries it is their share, counting the query itself. Without them, log(1 + heaviness)
    of clean queries is taken to be exponential above the median of all queries, with the median's distance to the
    upper decile: targets among the heaviest tenth do not move it.
    """
    if clean is not None:
        ordered = np.sort(clean)
        at_least = len(ordered) - np.searchsorted(ordered, heaviness, side="left")
        return np.asarray((1.0 + at_least) / (1.0 + len(ordered)))
    if len(heaviness) < MIN_QUERIES:
        return np.full(len(heaviness), np.nan)
    logs = np.log1p(heaviness)
    median, scale = _exponential_tail(logs, MEDIAN, UPPER)
    if scale <= 0.0:
        return np.full(len(heaviness), np.nan)
    return np.asarray(np.minimum(1.0, (1.0 - MEDIAN) * np.exp(-(logs - median) / scale)))


def flagged_by_chance(heaviness: Array, level: float, clean: Array | None) -> float | None:
    """How many of these queries would be flagged at this level if all of them were clean.

    With the heaviness of clean queries it is the share that the level says. Without them the level rests on the middle
    of the heaviness, and the tail of clean queries may be longer or shorter. So it is taken from the tail itself, which
    is exponential in log(1 + heaviness) above the upper decile, up to the 97th percentile. None if there are too few
    queries for that. More targets than 3 % make it too large.
    """
    if clean is not None:
        return level * len(heaviness)
    if len(heaviness) < MIN_QUERIES or len(heaviness) * (1.0 - EXTREME) < MIN_EXTREMES or level > 1.0 - UPPER:
        return None
    logs = np.log1p(heaviness)
    median, scale = _exponential_tail(logs, MEDIAN, UPPER)
    upper, scale_above = _exponential_tail(logs, UPPER, EXTREME)
    if scale <= 0.0 or scale_above <= 0.0:
        return None
    cutoff = median + scale * np.log((1.0 - MEDIAN) / level)
    return float(len(heaviness) * (1.0 - UPPER) * np.exp(-(cutoff - upper) / scale_above))


def _exponential_tail(values: Array, start: float, end: float) -> tuple[float, float]:
    """(the quantile at `start`, the scale of an exponential above it that has the quantile at `end`)."""
    first, last = np.quantile(values, [start, end])
    return float(first), float((last - first) / np.log((1.0 - start) / (1.0 - end)))


def _z_values(row: Array, counts: NDArray[np.intp], compared: NDArray[np.bool_]) -> Array:
    """Robust z-values of one query's influences among these training examples; a row of k copies counts k times."""
    positions = np.flatnonzero(compared)
    copies = np.repeat(np.arange(len(positions)), counts[positions])
    of_copies = robust_z((row[positions] / counts[positions])[copies])
    z = np.full(len(row), -np.inf)
    z[positions[copies]] = of_copies
    return z


def _kth_largest(z: Array, counts: NDArray[np.intp], k: int) -> float:
    """The k-th largest of the z-values, each counted for all its copies."""
    order = np.argsort(-z, kind="stable")[:k]
    return float(z[order[np.searchsorted(np.cumsum(counts[order]), k)]])


def _equal(train: Examples, queries: Examples, present: NDArray[np.intp]) -> dict[int, list[int]]:
    """Position of a query → positions of the training examples with the same inputs."""
    first, _ = equal_rows(train, queries, present)
    rows = {place: position for place, position in enumerate(first) if position is not None}
    if not rows:
        return {}
    of_first, _ = equal_rows(train, train.take(present), present)
    same: dict[int, list[int]] = {}
    for position, leader in zip(present.tolist(), of_first, strict=True):
        assert leader is not None
        same.setdefault(leader, []).append(position)
    return {place: same[leader] for place, leader in rows.items()}

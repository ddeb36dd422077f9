"""Intervals from retrained removals: conformal ones for effects of other removals, and a bootstrap band of a slope."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Columns = NDArray[np.intp]
BOOTSTRAP_SAMPLES = 1000
MAX_GROWTH, WARNED_GROWTH = 2.0, 1.25  # how many times larger than those retrained a group with an interval may be
RANDOM_GROUPS = 500  # drawn to find out whether a group was chosen by its scores


@dataclass(frozen=True, eq=False)
class Coverage:
    """How often intervals contain the actual effect.

    Attributes:
        low, high: ends of the intervals, (queries, removals); NaN if there is no interval.
        inside: whether the actual effect lies in its interval, (queries, removals).
        level: the probability for which the intervals were made.
        promised: the highest probability that this few removals can promise.
    """

    low: Array
    high: Array
    inside: NDArray[np.bool_]
    level: float
    promised: float

    @property
    def rate(self) -> float:
        """Share of pairs with an interval that contains the actual effect."""
        has_interval = np.isfinite(self.low)
        return float(self.inside[has_interval].mean()) if has_interval.any() else float("nan")

    def __repr__(self) -> str:
        return f"Coverage({self.rate:.3f} of {int(np.isfinite(self.low).sum())} pairs at level {self.level:g})"


def require_similar(values: Array, group: Columns, retrained: Sequence[Columns]) -> None:
    """Compare a group with the retrained ones, whose residuals give its interval.

    Raises ValueError if it is far larger than the largest of them. Gives a UserWarning if it is somewhat larger, or if
    its scores are more extreme than those of random groups of its size and of all retrained ones, as if it had been
    chosen by its scores: its effects are then further from the sum of its scores.

    Args:
        values: the scores, (queries, columns).
        group: the columns of the group.
        retrained: the columns of every retrained group.
    """
    size, largest = len(group), max(map(len, retrained))
    retry = 'verify(…, removals={"name": ids, …})'
    if size > MAX_GROWTH * largest:
        raise ValueError(
            f"expected a group of a size that was retrained, got {size:,} examples where the largest retrained "
            f"group has {largest:,}, so the interval would promise too much; verify with groups of that size: {retry}"
        )
    reasons = {}
    if size > WARNED_GROWTH * largest:
        reasons[f"is larger than the largest retrained group ({largest:,})"] = "are of that size"
    if size > 1 and _is_chosen(values, group, retrained):
        reasons["has scores that are more extreme than those of random groups"] = "were chosen in the same way"
    if reasons:
        warnings.warn(
            f"This group of {size:,} examples {' and '.join(reasons)}, so its interval may contain the effect less "
            f"often than promised; verify with groups that {' and '.join(reasons.values())}: {retry}.",
            UserWarning,
            stacklevel=3,
        )


def _is_chosen(values: Array, group: Columns, retrained: Sequence[Columns]) -> bool:
    """Whether no random group of this size, and none that was retrained, has scores as extreme as this group."""
    rng = np.random.default_rng(0)
    drawn = [rng.choice(values.shape[1], len(group), replace=False) for _ in range(RANDOM_GROUPS)]
    strength, *others = _strengths(values, [group, *drawn, *retrained])
    return bool((strength > np.max(others, axis=0)).any())


def _strengths(values: Array, groups: Sequence[Columns]) -> list[Array]:
    """How far the sum and the signs of each group's scores are from those of random groups, (2,) per group.

    Both are in standard deviations of groups of that size, and the largest over queries.
    """
    deviations = np.nan_to_num(values - np.nanmean(values, axis=1, keepdims=True))
    is_positive = (deviations > 0) - (deviations > 0).mean(axis=1, keepdims=True)
    strengths = []
    for columns in groups:
        spread = len(columns) * (1 - len(columns) / values.shape[1])
        sums = [
            np.abs(numbers[:, columns].sum(axis=1)) / np.maximum(numbers.std(axis=1) * np.sqrt(spread), 1e-300)
            for numbers in (deviations, is_positive)
        ]
        strengths.append(np.max(sums, axis=1))
    return strengths


def half_widths(residuals: Array, sizes: Array, target_sizes: Array, level: float) -> Array:
    """Half widths of split-conformal intervals for removals of these target sizes, (queries, …).

    Args:
        residuals: actual minus predicted effects of the retrained removals, (queries, removals).
        sizes: √Σ score² of these removals, (queries, removals): the unit of their residuals.
        target_sizes: √Σ score² of the removals that get an interval.
        level: the probability with which an interval contains the effect.
    """
    floor = np.sqrt((sizes**2).mean(axis=1, keepdims=True))
    if not floor.any():  # scores that are zero everywhere give residuals no unit
        return np.full(target_sizes.shape, np.nan)
    floor = np.where(floor > 0, floor, floor[floor > 0].mean())
    relative, count = np.abs(residuals) / np.hypot(sizes, floor), residuals.shape[1]
    share = min(1.0, level * (count + 1) / count)
    bound = float(np.quantile(relative, share, method="inverted_cdf"))
    return np.asarray(bound * np.hypot(target_sizes, floor))


def slope_band(predicted: Array, actual: Array, level: float, seed: int) -> tuple[float, float]:
    """Bootstrap interval over removals of the slope of actual on predicted effects, both (queries, removals)."""
    cross, power = (predicted * actual).sum(axis=0), (predicted * predicted).sum(axis=0)
    drawn = np.random.default_rng(seed).integers(len(cross), size=(BOOTSTRAP_SAMPLES, len(cross)))
    powers = power[drawn].sum(axis=1)
    slopes = cross[drawn].sum(axis=1)[powers > 0] / powers[powers > 0]
    if len(slopes) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(slopes, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

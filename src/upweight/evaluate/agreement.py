"""Agreement of predicted with actual effects: slope, correlations and coefficient of determination."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
# A slope needs predictions that vary or correlate: one of the two has to be at least this.
MIN_VARIANCE = 0.1  # variance of the predictions as a share of the actual variance
MIN_CORRELATION = 0.5  # Pearson's


@dataclass(frozen=True)
class Agreement:
    """Agreement over `count` pairs of predicted and actual effects.

    Attributes:
        slope: least-squares slope of actual on predicted through the origin; 1 = calibrated. NaN if the predictions are
            almost constant beside the actual effects (less than a tenth of their variance, and a Pearson below .5):
            such a slope compares the means, and says nothing about sizes.
        pearson, spearman: correlations; NaN if one side is constant or empty, since there is nothing to rank.
        count: number of pairs.
        r2: share of the actual variance that the predictions explain as they are (not after a fit): 1 is perfect,
            0 as good as the actual mean, negative worse.
    """

    slope: float
    pearson: float
    spearman: float
    count: int
    r2: float = float("nan")

    def __str__(self) -> str:
        slope = "" if math.isnan(self.slope) else f"slope {self.slope:.3f}, "
        return f"{slope}Pearson {self.pearson:.4f}, Spearman {self.spearman:.4f} ({self.count} pairs)"

    def without_sizes(self) -> Agreement:
        """The correlations alone: slope and R² compare sizes, which RANK scores do not have."""
        return replace(self, slope=float("nan"), r2=float("nan"))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN is None."""
        return {name: value if name == "count" else finite_or_none(value) for name, value in asdict(self).items()}


def agreement(predicted: Array, actual: Array) -> Agreement:
    """Agreement of two arrays of the same shape, over all pairs of entries."""
    p, a = np.ravel(predicted), np.ravel(actual)
    sum_of_squares, pearson = float(p @ p), correlation(p, a)
    spread = float(((a - a.mean()) ** 2).sum()) if _varies(a) else 0.0
    is_flat = _varies(a) and float(np.var(p)) < MIN_VARIANCE * float(np.var(a)) and not pearson >= MIN_CORRELATION
    return Agreement(
        slope=float(p @ a) / sum_of_squares if sum_of_squares > 0 and not is_flat else float("nan"),
        pearson=pearson,
        spearman=correlation(rankdata(p), rankdata(a)),
        count=len(p),
        r2=1.0 - float(((a - p) ** 2).sum()) / spread if spread > 0 else float("nan"),
    )


def correlation(p: Array, a: Array) -> float:
    """Pearson's r; NaN if one side does not vary."""
    if not (_varies(p) and _varies(a)):
        return float("nan")
    p, a = p - p.mean(), a - a.mean()
    size = float(np.sqrt((p @ p) * (a @ a)))
    return float(p @ a) / size if size > 0 else float("nan")


def rank_correlations(predicted: Array, actual: Array) -> Array:
    """Spearman's correlation of every row of two arrays (rows, columns); NaN if one side of a row is constant."""
    if np.shape(predicted) != np.shape(actual):
        raise ValueError(f"expected two arrays of one shape, got {np.shape(predicted)} and {np.shape(actual)}")
    p, a = (rankdata(side, axis=1) for side in (predicted, actual))
    p, a = (side - side.mean(axis=1, keepdims=True) for side in (p, a))
    size = np.sqrt((p * p).sum(axis=1) * (a * a).sum(axis=1))
    return np.asarray(np.divide((p * a).sum(axis=1), size, out=np.full(len(p), np.nan), where=size > 0))


def resampled_correlations(predicted: Array, actual: Array, counts: Array) -> Array:
    """`rank_correlations` of bootstrap samples of the columns, (samples, rows).

    `counts` (samples, columns) says how often each column is in each sample. The rank of a value in a sample follows
    from how often the smaller values are in it, so that every row is sorted only once.
    """
    total = counts.sum(axis=1)
    correlations = np.full((len(counts), len(predicted)), np.nan)
    for row, pair in enumerate(zip(predicted, actual, strict=True)):
        p, a = (_ranks(side, counts) - total[:, None] / 2 for side in pair)
        size = np.sqrt((counts * p * p).sum(axis=1) * (counts * a * a).sum(axis=1))
        np.divide((counts * p * a).sum(axis=1), size, out=correlations[:, row], where=size > 0)
    return correlations


def _ranks(values: Array, counts: Array) -> Array:
    """Rank of every value in every sample minus one half, (samples, columns); equal values share their mean rank."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    below = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(counts[:, order], axis=1)], axis=1)
    first, last = (np.searchsorted(ordered, ordered, side) for side in ("left", "right"))
    ranks = np.empty(counts.shape)
    ranks[:, order] = (below[:, first] + below[:, last]) / 2
    return ranks


def finite_mean(values: Array, axis: int | None = None) -> Any:
    """Mean over the finite values; NaN if there are none."""
    is_finite = np.isfinite(values)
    total, count = np.where(is_finite, values, 0.0).sum(axis=axis), is_finite.sum(axis=axis)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)[()]


def finite_or_none(value: Any) -> float | None:
    """The number; None if it is missing, NaN or infinite."""
    return float(value) if value is not None and math.isfinite(value) else None


def formatted(value: Any, digits: int = 3) -> str:
    """The number with a few decimals; a dash if it is missing, NaN or infinite."""
    return "–" if finite_or_none(value) is None else f"{value:.{digits}f}".replace("-", "−")


def _varies(values: Array) -> bool:
    return len(values) > 0 and float(np.ptp(values)) > 0

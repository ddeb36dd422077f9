"""Agreement of predicted with actual effects: slope, correlations, determination."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Over `count` pairs: least-squares slope of actual on predicted through the origin (1 = calibrated), correlations.

    `r2` is the share of the actual variance that the predictions explain as they stand (not after a fit): 1 is
    perfect, 0 is as good as their mean, negative is worse. A correlation of a constant (or of nothing) is NaN: there
    is nothing to rank.
    """

    slope: float
    pearson: float
    spearman: float
    count: int
    r2: float = float("nan")

    def __str__(self) -> str:
        return f"slope {self.slope:.3f}, Pearson {self.pearson:.4f}, Spearman {self.spearman:.4f} ({self.count} pairs)"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what there is no number for is None."""
        return {name: value if name == "count" else finite_or_none(value) for name, value in asdict(self).items()}


def agreement(predicted: Array, actual: Array) -> Agreement:
    """Agreement of two arrays of one shape."""
    p, a = np.ravel(predicted), np.ravel(actual)
    power = float(p @ p)
    spread = float(((a - a.mean()) ** 2).sum()) if _varies(a) else 0.0
    return Agreement(
        slope=float(p @ a) / power if power > 0 else float("nan"),
        pearson=correlation(p, a),
        spearman=correlation(rankdata(p), rankdata(a)),
        count=len(p),
        r2=1.0 - float(((a - p) ** 2).sum()) / spread if spread > 0 else float("nan"),
    )


def correlation(p: Array, a: Array) -> float:
    """Pearson's r, NaN where one side does not vary."""
    if not (_varies(p) and _varies(a)):
        return float("nan")
    p, a = p - p.mean(), a - a.mean()
    size = float(np.sqrt((p @ p) * (a @ a)))
    return float(p @ a) / size if size > 0 else float("nan")


def rank_correlations(predicted: Array, actual: Array) -> Array:
    """Spearman of every row of two (rows, columns) arrays; NaN for a row in which one side does not vary."""
    if np.shape(predicted) != np.shape(actual):
        raise ValueError(f"expected two arrays of one shape, got {np.shape(predicted)} and {np.shape(actual)}")
    p, a = (rankdata(side, axis=1) for side in (predicted, actual))
    p, a = (side - side.mean(axis=1, keepdims=True) for side in (p, a))
    size = np.sqrt((p * p).sum(axis=1) * (a * a).sum(axis=1))
    return np.asarray(np.divide((p * a).sum(axis=1), size, out=np.full(len(p), np.nan), where=size > 0))


def resampled_correlations(predicted: Array, actual: Array, counts: Array) -> Array:
    """`rank_correlations` of bootstrap samples, (samples, rows); `counts` (samples, columns) says how often each is in.

    A value's rank in a sample follows from how often the smaller ones are in it, so rows are sorted once for all.
    """
    total = counts.sum(axis=1)
    found = np.full((len(counts), len(predicted)), np.nan)
    for row, pair in enumerate(zip(predicted, actual, strict=True)):
        p, a = (_ranks(side, counts) - total[:, None] / 2 for side in pair)
        size = np.sqrt((counts * p * p).sum(axis=1) * (counts * a * a).sum(axis=1))
        np.divide((counts * p * a).sum(axis=1), size, out=found[:, row], where=size > 0)
    return found


def _ranks(values: Array, counts: Array) -> Array:
    """Mean rank less one half of every value in every sample, equals sharing theirs, (samples, columns)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    below = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(counts[:, order], axis=1)], axis=1)
    first, last = (np.searchsorted(ordered, ordered, side) for side in ("left", "right"))
    ranks = np.empty(counts.shape)
    ranks[:, order] = (below[:, first] + below[:, last]) / 2
    return ranks


def finite_mean(values: Array, axis: int | None = None) -> Any:
    """Mean over what is a number; NaN where nothing is."""
    there = np.isfinite(values)
    total, count = np.where(there, values, 0.0).sum(axis=axis), there.sum(axis=axis)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)[()]


def finite_or_none(value: Any) -> float | None:
    """The number, None where there is none."""
    return float(value) if value is not None and math.isfinite(value) else None


def formatted(value: Any, digits: int = 3) -> str:
    """The number with a few decimals, a dash where there is none."""
    return "–" if finite_or_none(value) is None else f"{value:.{digits}f}".replace("-", "−")


def _varies(values: Array) -> bool:
    return len(values) > 0 and float(np.ptp(values)) > 0

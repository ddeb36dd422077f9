"""Agreement of predicted with actual effects: slope, correlations, LDS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Over `count` pairs: least-squares slope of actual on predicted through the origin (1 = calibrated), correlations.

    A correlation of a constant (or of nothing) is NaN: there is nothing to rank.
    """

    slope: float
    pearson: float
    spearman: float
    count: int

    def __str__(self) -> str:
        return f"slope {self.slope:.3f}, Pearson {self.pearson:.4f}, Spearman {self.spearman:.4f} ({self.count} pairs)"


def agreement(predicted: Array, actual: Array) -> Agreement:
    """Agreement of two arrays of one shape."""
    p, a = np.ravel(predicted), np.ravel(actual)
    power = float(p @ p)
    return Agreement(
        slope=float(p @ a) / power if power > 0 else float("nan"),
        pearson=correlation(p, a),
        spearman=correlation(rankdata(p), rankdata(a)),
        count=len(p),
    )


def correlation(p: Array, a: Array) -> float:
    """Pearson's r, NaN where one side does not vary."""
    if len(p) == 0:
        return float("nan")
    p, a = p - p.mean(), a - a.mean()
    size = float(np.sqrt((p @ p) * (a @ a)))
    return float(p @ a) / size if size > 0 else float("nan")


def lds(predicted: Array, actual: Array) -> float:
    """Linear datamodelling score: mean over queries of Spearman over subsets, both (queries, subsets).

    Source: Park et al. (2023), TRAK, eq. 4.
    """
    pairs = zip(predicted, actual, strict=True)
    return float(np.mean([correlation(rankdata(p), rankdata(a)) for p, a in pairs]))

"""Robust z-values: distances from the median in units of the Qn scale of Rousseeuw and Croux (1993)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
CONSISTENCY = 2.2191444659850757  # 1 / (√2 Φ⁻¹(5/8)): Qn of normal values is their standard deviation


def qn_scale(values: Array) -> float:
    """Qn: the k-th smallest of all distances between two values, times a constant; 0 if about half of them are equal.

    With h = ⌊n/2⌋ + 1, k = h(h − 1)/2. Half of the values may be arbitrary without moving it far. The k-th smallest is
    found in O(n log n) steps on average, without holding all pairs. Two values are needed.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n < 2:
        raise ValueError(f"expected at least two values to measure their spread, got {n}")
    half = n // 2 + 1
    return CONSISTENCY * _smallest_distance(ordered, half * (half - 1) // 2)


def robust_z(values: Array) -> Array:
    """(value − median) / Qn, (n,); NaN stays out of both and becomes 0.

    If half of the values are equal, Qn is taken over the others. If these are equal too, all z are 0.
    """
    known = values[~np.isnan(values)]
    z = np.zeros(len(values))
    if len(known) < 2:
        return z
    median = float(np.median(known))
    scale = qn_scale(known)
    if scale == 0.0:
        others = known[known != median]
        scale = qn_scale(others) if len(others) > 1 else 0.0
    return np.nan_to_num((values - median) / scale) if scale > 0 else z


def _smallest_distance(ordered: Array, k: int) -> float:
    """The k-th smallest difference of two of these sorted values.

    The distances from value i to the later ones grow with j. So the distances that may be the k-th smallest are a range
    of j for every i, which a pivot shortens: the median of the middles of the ranges, weighted by their lengths.
    """
    n = len(ordered)
    first, last = np.arange(1, n + 1), np.full(n, n)  # the ranges of j, the end not included
    below = 0  # distances that are smaller than all in the ranges
    while (lengths := last - first).sum() > n:
        rows = np.flatnonzero(lengths)
        middles = ordered[(first[rows] + last[rows]) // 2] - ordered[rows]
        by_size = np.argsort(middles, kind="stable")
        passed = np.cumsum(lengths[rows][by_size])
        pivot = middles[by_size[np.searchsorted(passed, passed[-1] / 2)]]
        smaller = np.clip(np.searchsorted(ordered, ordered + pivot, side="left"), first, last)
        not_larger = np.clip(np.searchsorted(ordered, ordered + pivot, side="right"), smaller, last)
        if k <= below + (smaller - first).sum():
            last = smaller
        elif k <= below + (not_larger - first).sum():
            return float(pivot)
        else:
            below += int((not_larger - first).sum())
            first = not_larger
    rows = np.repeat(np.arange(n), lengths)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + first[rows]
    candidates = ordered[columns] - ordered[rows]
    return float(np.partition(candidates, k - below - 1)[k - below - 1])

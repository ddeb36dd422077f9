"""Intervals for scores that are means over random trainings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Array = NDArray[np.float64]
LEVEL = 0.9  # the probability with which an interval contains what the score estimates


def t_quantile(degrees: Array | float) -> Array:
    """The half width of a 90 % interval in standard errors, by Student's t with these degrees of freedom."""
    return np.asarray(stdtrit(degrees, (1.0 + LEVEL) / 2.0))


def pooled_half_widths(samples: Array) -> Array:
    """Half widths for means over the first axis of samples (runs, m, n), (m, n).

    With few runs the variance of one score is hardly known, and may be 0 by luck. So a variance below the mean variance
    of the same query over all examples is raised half-way to it, which makes intervals rather too wide than too narrow.
    NaN for a single run.
    """
    runs = len(samples)
    if runs < 2:
        return np.full(samples.shape[1:], np.nan)
    variances = samples.var(axis=0, ddof=1)
    pooled = (variances + np.nanmean(variances, axis=1, keepdims=True)) / 2.0
    return np.asarray(t_quantile(runs - 1) * np.sqrt(np.maximum(variances, pooled) / runs))

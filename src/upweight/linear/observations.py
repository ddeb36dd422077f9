"""Observations: how many a row of a training set stands for, and the dispersion, where the software that fitted says.

Sample weights alone do not say whether a row of weight 3 is three observations or one of three times the precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples, Id
from upweight.core.weights import example_counts, sample_weights


@dataclass(frozen=True)
class Observations:
    """What is known of a fit beside its weights.

    Attributes:
        counts: id → the number of observations of its row; None if the weights say it (`example_counts`).
        dispersion: φ, if it is fixed; None if it is estimated from the Pearson residuals, as without `is_known`.
        is_known: whether `dispersion` says where φ comes from; else the likelihood does.
    """

    counts: Mapping[Id, float] | None = None
    dispersion: float | None = None
    is_known: bool = False

    def counts_of(self, train: Examples) -> NDArray[np.float64] | None:
        """The number of observations of every row, (n,); None if all are 1. Ids of other data count by weights."""
        known = self.counts
        if known is not None and all(id_ in known for id_ in train.ids.tolist()):
            return np.array([known[id_] for id_ in train.ids.tolist()], dtype=np.float64)
        return None if train.weights is None else example_counts(sample_weights(train))

    def fixed_dispersion(self, has_dispersion: bool) -> float | None:
        """φ if it is not estimated: 1 for a likelihood without one, unless the fit says otherwise."""
        if self.is_known:
            return self.dispersion
        return None if has_dispersion else 1.0

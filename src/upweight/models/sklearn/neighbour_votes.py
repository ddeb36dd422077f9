"""What k nearest neighbours and radius neighbours share: the search for neighbours, and what they vote for."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.model_reader import UnsupportedSettingsError
from upweight.models.sklearn.outputs_by_weights import Array, ClosedForm

FITTED_METRICS = ("seuclidean", "mahalanobis")  # metrics that take a scale from the data unless it is given


class NeighbourVotes(ClosedForm):
    """Outputs that are means over rows near the query, of which those of positive weight vote.

    Attributes:
        classes: number of classes; None for target values.
    """

    classes: int | None

    def fitted(self, factors: Array) -> Array:
        """The number of copies of every row, (n,)."""
        return factors * self.weights

    @cached_property
    def row_votes(self) -> Array:
        """(n, K) what each row votes for: its class, or its target values."""
        if self.classes is not None:
            return np.asarray(np.eye(self.classes)[self.targets])
        return np.asarray(self.targets, dtype=np.float64).reshape(len(self.targets), -1)

    @cached_property
    def voters(self) -> NDArray[np.intp]:
        """Positions of the rows of positive weight."""
        return np.flatnonzero(self.weights)


def search_settings(estimator: Any) -> dict[str, Any]:
    """The settings of the search for neighbours."""
    return {key: getattr(estimator, key) for key in ("algorithm", "leaf_size", "metric", "p", "metric_params")}


def require_metric(estimator: Any) -> None:
    """Raise UnsupportedSettingsError for distances that are precomputed, or that take their scale from the data."""
    name = type(estimator).__name__
    if estimator.metric == "precomputed":
        raise UnsupportedSettingsError(
            f"expected {name} with a metric on its inputs, got metric='precomputed', which cannot be evaluated here; "
            "pass a named metric or a function"
        )
    if estimator.metric in FITTED_METRICS and not estimator.metric_params:
        raise UnsupportedSettingsError(
            f"expected {name} with metric_params=, got metric={estimator.metric!r} alone, whose scale would change "
            "with every removal; pass the scale in metric_params"
        )

"""NearestCentroid of scikit-learn: distances to the means of the classes, which may be shrunk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from upweight.core.model_reader import UnsupportedSettingsError
from upweight.linear.losses.class_scores import LogScoreLoss
from upweight.models.sklearn.class_priors import ClassPriors
from upweight.models.sklearn.closed_form_spec import FormSpec
from upweight.models.sklearn.outputs_by_weights import Array, ClosedForm


def nearest_centroid(estimator: Any) -> FormSpec:
    """NearestCentroid with the Euclidean metric, measured by its decision function."""
    if estimator.metric != "euclidean":
        raise UnsupportedSettingsError(
            f"expected NearestCentroid with metric='euclidean', got {estimator.metric!r}, with which it has neither "
            "scores nor probabilities to measure; fit it with metric='euclidean'"
        )
    if not hasattr(estimator, "decision_function"):
        raise UnsupportedSettingsError(
            "expected a NearestCentroid with a decision function, which it has from scikit-learn 1.6; upgrade it"
        )
    named = isinstance(estimator.priors, str)
    priors = ClassPriors.of(
        len(estimator.classes_), None if named else estimator.priors, named and estimator.priors == "uniform"
    )
    form = partial(CentroidForm, priors=priors, threshold=estimator.shrink_threshold)
    return FormSpec(LogScoreLoss(estimator.classes_, has_decision=True), form, takes_weights=False)


class _Centroids(NamedTuple):
    """For every class the weight (K,) and the centroid (K, d); and the spread of every column within classes (d,)."""

    counts: Array
    centroids: Array
    spread: Array


@dataclass(frozen=True, eq=False)
class CentroidForm(ClosedForm):
    """−Σ ((x − centroid)/spread)² + 2 log prior for every class.

    Attributes:
        priors: the prior probabilities of the classes.
        threshold: how far centroids are shrunk to the mean of all examples; None for not.
    """

    priors: ClassPriors
    threshold: float | None

    def fitted(self, factors: Array) -> _Centroids:
        """Weights, centroids and spreads."""
        weights = factors * self.weights
        counts, total = self.priors.count(self.targets, weights), float(weights.sum())
        means = np.zeros((len(counts), self.x.shape[1]))
        np.add.at(means, self.targets, weights[:, None] * self.x)
        means /= counts[:, None]
        squares = weights @ (self.x - means[self.targets]) ** 2
        spread = np.sqrt(squares / (total - len(counts)))
        if not self.threshold:
            return _Centroids(counts, means, spread)
        middle = weights @ self.x / total
        scale = np.sqrt(1.0 / counts - 1.0 / total)[:, None] * (spread + np.median(spread))
        deviation = (means - middle) / scale
        shrunk = np.sign(deviation) * np.maximum(np.abs(deviation) - self.threshold, 0.0)
        return _Centroids(counts, middle + scale * shrunk, spread)

    def outputs(self, fitted: _Centroids, x: Any) -> Array:
        """Scores (m, K)."""
        scale = np.where(fitted.spread != 0, fitted.spread, 1.0)
        distances = ((x[:, None] - fitted.centroids) / scale) ** 2
        return np.asarray(-distances.sum(axis=-1) + 2.0 * self.priors.logs(fitted.counts))

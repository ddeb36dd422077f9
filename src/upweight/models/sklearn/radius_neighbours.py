"""Radius neighbours of scikit-learn: without an example, the others within the radius vote alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from upweight.core.model_reader import UnsupportedSettingsError
from upweight.linear.losses.class_scores import ProbabilityLoss
from upweight.linear.losses.squared import SquaredLoss
from upweight.models.sklearn.closed_form_spec import FormSpec
from upweight.models.sklearn.neighbour_votes import NeighbourVotes, require_metric, search_settings
from upweight.models.sklearn.outputs_by_weights import Array


def radius_neighbours(estimator: Any) -> FormSpec:
    """RadiusNeighborsClassifier and RadiusNeighborsRegressor."""
    require_metric(estimator)
    if callable(estimator.weights):
        raise UnsupportedSettingsError(
            f"expected {type(estimator).__name__} with weights 'uniform' or 'distance', got a function, which takes "
            "the distances of one query at a time"
        )
    classes = getattr(estimator, "classes_", None)
    label = getattr(estimator, "outlier_label", None)
    form = partial(
        RadiusForm,
        classes=None if classes is None else len(classes),
        outlier=None if classes is None or label is None else np.asarray(classes == label, dtype=np.float64),
        is_outlier_mode=isinstance(label, str) and label == "most_frequent",
        radius=float(estimator.radius),
        by_distance=estimator.weights == "distance",
        search=search_settings(estimator),
    )
    outputs = 1 if np.ndim(estimator._y) == 1 else np.shape(estimator._y)[1]
    loss = SquaredLoss(outputs) if classes is None else ProbabilityLoss(classes)
    return FormSpec(loss, form, takes_weights=False, is_sparse=True, takes_missing=estimator.metric == "nan_euclidean")


@dataclass(frozen=True, eq=False)
class RadiusForm(NeighbourVotes):
    """Means over all rows within a radius; a row of weight k is k rows at one place.

    Attributes:
        classes: number of classes; None for target values.
        outlier: (classes,) the outputs for a query without a row in the radius; None if nothing is predicted for it.
        is_outlier_mode: whether these are 1 for the most frequent class.
        radius: within which rows vote.
        by_distance: whether votes are divided by the distance.
        search: settings of the search for neighbours.
    """

    classes: int | None
    outlier: Array | None
    is_outlier_mode: bool
    radius: float
    by_distance: bool
    search: Mapping[str, Any]

    def outputs(self, fitted: Array, x: Any) -> Array:
        """Shares of the votes, or mean target values, (m, K); NaN for a query that has no row left within the radius.

        Raises ValueError for a query that has none even before a removal.
        """
        votes = self._votes(x, fitted)
        means = self._means(votes @ self.row_votes, np.asarray(votes.sum(axis=1)).ravel(), fitted)
        lost = np.isnan(means).any(axis=1)
        if lost.any() and np.array_equal(fitted, self.weights):
            raise ValueError(
                f"expected queries with a training example within the radius of {self.radius:g}, got {int(lost.sum())} "
                "without one, for which nothing is predicted; fit with a larger radius, or a classifier with an "
                "outlier_label"
            )
        return means

    def outputs_without(self, positions: NDArray[np.intp], x: Any) -> Array:
        """Only the outputs of queries that have the example within the radius change."""
        base = self.outputs(self.weights, x)
        out, columns = np.repeat(base[:, None], len(positions), axis=1), self._votes(x, self.weights).tocsc()
        for place, position in enumerate(positions.tolist()):
            near = columns.indices[columns.indptr[position] : columns.indptr[position + 1]]
            if len(near):
                copies = self.weights.copy()
                copies[position] = 0.0
                out[near, place] = self.outputs(copies, x[near])
        return out

    def probes(self, positions: NDArray[np.intp]) -> Any:
        """These rows of positive weight, each of which is within its own radius."""
        return self.x[positions[self.weights[positions] > 0]]

    def doubts(self, x: Any) -> list[str]:
        """That some queries have only one example within the radius."""
        votes = self._votes(x, self.weights)
        alone = int((np.diff(votes.indptr) == 1).sum()) if self.outlier is None else 0
        if not alone:
            return []
        return [
            f"{alone} of {x.shape[0]} queries have only one training example within the radius: without it nothing is "
            "predicted for them, so that it has no score (NaN)."
        ]

    @cached_property
    def _index(self) -> Any:
        return NearestNeighbors(radius=self.radius, **self.search).fit(self.x[self.voters])

    def _votes(self, x: Any, copies: Array) -> Any:
        """The votes of rows for queries, sparse (m, n); rows without copies have none."""
        distances, places = self._index.radius_neighbors(x)
        queries = np.repeat(np.arange(len(places)), [len(part) for part in places])
        rows = self.voters[np.concatenate([*places, np.empty(0, np.intp)]).astype(np.intp)]
        distance, counted = np.concatenate([*distances, np.empty(0)]), copies[rows] > 0
        queries, rows, distance = queries[counted], rows[counted], distance[counted]
        votes = copies[rows]
        if self.by_distance:
            same = distance == 0
            has_same = np.bincount(queries[same], minlength=len(places)) > 0
            with np.errstate(divide="ignore"):
                votes = votes * np.where(has_same[queries], same, 1.0 / distance)
        return sparse.csr_array((votes, (queries, rows)), shape=(len(places), len(self.weights)))

    def _means(self, totals: Array, counts: Array, copies: Array) -> Array:
        """totals (m, K) per vote; without votes the outputs of an outlier, or NaN."""
        is_empty = counts == 0
        outlier: Any = np.nan if self.outlier is None else self.outlier
        if self.is_outlier_mode:
            outlier = np.eye(totals.shape[1])[(copies @ self.row_votes).argmax()]
        return np.where(is_empty[:, None], outlier, totals / np.where(is_empty, 1.0, counts)[:, None])

"""k nearest neighbours of scikit-learn: if an example is removed, the next neighbour takes its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from upweight.linear.losses.class_scores import ProbabilityLoss
from upweight.linear.losses.squared import SquaredLoss
from upweight.models.sklearn.closed_form_spec import FormSpec
from upweight.models.sklearn.neighbour_votes import NeighbourVotes, require_metric, search_settings
from upweight.models.sklearn.outputs_by_weights import Array

TIE_TOLERANCE = 1e-8  # relative difference of distances up to which neighbours are equally near


def nearest_neighbours(estimator: Any) -> FormSpec:
    """KNeighborsClassifier and KNeighborsRegressor."""
    require_metric(estimator)
    classes = getattr(estimator, "classes_", None)
    form = partial(
        NeighbourForm,
        classes=None if classes is None else len(classes),
        neighbours=int(estimator.n_neighbors),
        weighting=estimator.weights,
        search=search_settings(estimator),
    )
    outputs = 1 if np.ndim(estimator._y) == 1 else np.shape(estimator._y)[1]
    loss = SquaredLoss(outputs) if classes is None else ProbabilityLoss(classes)
    return FormSpec(loss, form, takes_weights=False, is_sparse=True, takes_missing=estimator.metric == "nan_euclidean")


@dataclass(frozen=True, eq=False)
class NeighbourForm(NeighbourVotes):
    """Means over the nearest neighbours; a row of weight k is k neighbours at one point.

    Attributes:
        classes: number of classes; None for target values.
        neighbours: how many vote.
        weighting: "uniform", "distance", None or a function of distances (m, neighbours).
        search: settings of the search for neighbours.
    """

    classes: int | None
    neighbours: int
    weighting: str | Callable[[Array], Array] | None
    search: Mapping[str, Any]

    def outputs(self, fitted: Array, x: Any) -> Array:
        """Shares of the votes, or mean target values, (m, K)."""
        removed = int(((fitted == 0) & (self.weights > 0)).sum())
        distances, rows = self._nearest(x, self.neighbours + removed)
        return self._means(distances, rows, fitted[rows])

    def outputs_without(self, positions: NDArray[np.intp], x: Any) -> Array:
        """The outputs without each example: only those of queries that have it among their neighbours change."""
        distances, rows = self._nearest(x, self.neighbours + 1)
        copies = self.weights[rows]
        base = self._means(distances, rows, copies)
        out = np.repeat(base[:, None], len(positions), axis=1)
        column = np.full(len(self.weights), -1)
        column[positions] = np.arange(len(positions))
        before = np.cumsum(copies, axis=1) - copies
        for rank in range(min(self.neighbours, rows.shape[1])):
            changed = np.flatnonzero((column[rows[:, rank]] >= 0) & (before[:, rank] < self.neighbours))
            if len(changed):
                remaining = copies[changed].copy()
                remaining[:, rank] = 0.0
                out[changed, column[rows[changed, rank]]] = self._means(distances[changed], rows[changed], remaining)
        return out

    def refusals(self) -> dict[int, str]:
        """Examples without which there are fewer rows than neighbours."""
        short = np.flatnonzero(self.weights.sum() - self.weights < self.neighbours)
        return {int(i): self._too_few for i in short}

    def refusal(self, factors: Array) -> str | None:
        """A reason if there are fewer rows than neighbours; else None."""
        return self._too_few if (factors * self.weights).sum() < self.neighbours else None

    @property
    def _too_few(self) -> str:
        return f"fewer than {self.neighbours} neighbours would be left"

    def probes(self, positions: NDArray[np.intp]) -> Any:
        """Points between these rows, since a row alone may decide the output at its own point."""
        return 0.6 * self.x[positions] + 0.4 * self.x[np.roll(positions, 1)]

    def is_determined(self, x: Any) -> NDArray[np.bool_]:
        """Whether no other row is as near as the last neighbour, nor as the next one, (m,)."""
        distances, rows = self._nearest(x, self.neighbours + 2)
        last = np.argmax(np.cumsum(self.weights[rows], axis=1) >= self.neighbours, axis=1)
        determined = np.ones(len(rows), dtype=bool)
        for first in (last, last + 1):
            near, far = (np.minimum(first + step, rows.shape[1] - 1) for step in (0, 1))
            places = np.arange(len(rows))
            gap = distances[places, far] - distances[places, near]
            determined &= (near == far) | (gap > TIE_TOLERANCE * distances[places, far])
        return determined

    @cached_property
    def _index(self) -> Any:
        return NearestNeighbors(**self.search).fit(self.x[self.voters])

    def _nearest(self, x: Any, count: int) -> tuple[Array, NDArray[np.intp]]:
        """Distances and numbers of the nearest rows, both (m, count): fewer if there are no more."""
        distances, places = self._index.kneighbors(x, n_neighbors=min(count, len(self.voters)))
        return distances, self.voters[places]

    def _means(self, distances: Array, rows: NDArray[np.intp], copies: Array) -> Array:
        """Means over the nearest `neighbours` copies of rows (m, L), which are ordered by distance."""
        ends, places = np.cumsum(copies, axis=1), np.arange(len(rows))[:, None]
        chosen = np.stack([(ends <= rank).sum(axis=1) for rank in range(self.neighbours)], axis=1)
        votes = self._votes(distances[places, chosen])
        return np.asarray(np.einsum("mk,mkc->mc", votes, self.row_votes[rows[places, chosen]]) / votes.sum(1)[:, None])

    def _votes(self, distances: Array) -> Array:
        """The weight of every neighbour, (m, neighbours), as scikit-learn weights them."""
        if self.weighting in (None, "uniform"):
            return np.ones_like(distances)
        if callable(self.weighting):
            return np.asarray(self.weighting(distances), dtype=np.float64)
        is_same = distances == 0
        with np.errstate(divide="ignore"):
            return np.where(is_same.any(axis=1)[:, None], is_same.astype(np.float64), 1.0 / distances)

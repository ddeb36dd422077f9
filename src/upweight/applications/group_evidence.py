"""The evidence that a group of training examples disagrees with the others: what is gained and lost without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Fitted
from upweight.core.examples import Examples
from upweight.core.group_removal import GroupRemoval
from upweight.core.weights import sample_weights

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class GroupEvidence:
    """What the queries gain without groups, and what the training examples lose.

    Members of a group that disagrees with the others support each other: without the group they are predicted worse,
    by what the others say. This tells more than a few queries do, and it has no noise of queries.

    Attributes:
        fitted: the fitted method.
        queries: those of the search.
        scores: (queries, n) of single examples.
        nat: by how much of the measurement a log-likelihood changes by 1; None if the measurement is no loss.
    """

    fitted: Fitted[Any, Any]
    queries: Examples
    scores: Array
    nat: float | None

    @property
    def harm(self) -> Array:
        """What the queries gain without each example, to first order, (n,)."""
        return np.asarray(-self.scores.sum(axis=0) / (self.nat or 1.0))

    def of(self, masks: Mask) -> tuple[Array, Array]:
        """What each query gains without each group, (groups, queries), and each training example loses, (groups, n).

        Both in nats if the measurement is a loss; an example of weight k loses k times as much. Losses are 0 if groups
        cannot be followed by Newton steps or recomputed, or the measurement is no loss.
        """
        n, fitted = masks.shape[1], self.fitted
        falls = np.zeros(masks.shape)
        if not (isinstance(fitted, GroupRemoval) and fitted.lacks_removal() is None and not _is_slow(fitted)):
            rises = -np.asarray(self.scores @ masks.T.astype(np.float64))
        else:
            groups = {str(g): fitted.train.ids[row].tolist() for g, row in enumerate(masks)}
            if self.nat is None or self.queries.y is None:
                rises = -fitted.remove(groups, self.queries).values
            else:
                values = fitted.remove(groups, _together(fitted.train, self.queries)).values
                falls, rises = values[:n].T * sample_weights(fitted.train) / self.nat, -values[n:]
        return np.asarray(rises.T / (self.nat or 1.0)), falls


def nat_of(model: Any, train: Examples) -> float | None:
    """The change of the measurement that is one nat of log-likelihood; None if the measurement is none.

    Squared errors are taken for those of normal distributions with the variance that training examples have.
    """
    if model.measurement == "−loss (nats)":
        return 1.0
    if model.measurement == "−loss (half squared error)":
        return 2.0 * float(np.abs(model.measure(train)).mean()) or None
    return None


def _together(train: Examples, queries: Examples) -> Examples:
    """The training examples followed by the queries, numbered anew."""
    numbers = np.arange(len(train) + len(queries))
    plain = [
        part.replaced(ids=ids, weights=None, shown=None)
        for part, ids in zip((train, queries), np.split(numbers, [len(train)]), strict=True)
    ]
    return plain[0].joined(plain[1])


def _is_slow(fitted: Fitted[Any, Any]) -> bool:
    """Whether groups are followed by replaying boosting, which takes a training each."""
    return type(fitted.recipe).__name__ in ("LeafRefit", "LeafInfluence")

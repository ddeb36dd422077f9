"""The targets of a linear head on features, and how well it predicts what a model predicts."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.linear.representer_head import RepresenterHead, fit_head

Array = NDArray[np.float64]
HELD_OUT_STRIDE = 10  # one of this many training examples is held out to try a head on
DIGITS = 6  # decimals, in standard deviations, to which projected features are compared


class HeadTargets(NamedTuple):
    """The targets of a head.

    Attributes:
        kind: what the target probabilities are.
        values: (n, classes).
        weights: of the examples, (n,).
        l2: on one logit per class.
        intercept: whether the logits have an intercept.
    """

    kind: Literal["labels", "predictions"]
    values: Array
    weights: Array
    l2: float
    intercept: bool

    def fit(self, features: Any, chosen: NDArray[np.intp]) -> RepresenterHead:
        """The head that is trained on these examples."""
        return fit_head(features[chosen], self.values[chosen], self.weights[chosen], self.l2, self.intercept)

    def compare(self, head: RepresenterHead, features: Any, predicted: Array) -> dict[str, Any]:
        """The head's probabilities beside those that the model predicts for the training set, (n, classes).

        A head that is trained on predictions is tried on every tenth example by a head that did not see these.
        """
        reconstructed, compared = head.probabilities(features), np.flatnonzero(self.weights > 0)
        if self.kind == "predictions":
            compared, rest = _split(features, compared)
            reconstructed = self.fit(features, rest).probabilities(features)
        return agreement(reconstructed[compared], predicted[compared], self.weights[compared])


def agreement(reconstructed: Array, predicted: Array, weights: Array) -> dict[str, Any]:
    """Pearson's correlation of two sets of probabilities (m, classes), and their mean difference; weights (m,)."""
    difference = np.abs(reconstructed - predicted).mean(axis=1)
    return {
        "faithful": _correlation(reconstructed, predicted, weights),
        "change": float(np.average(difference, weights=weights)),
    }


def _split(features: Any, chosen: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every tenth of the chosen examples, and the others.

    They are ordered by a projection of their features, so that copies are held out together or not at all.
    """
    projected = np.asarray(features[chosen] @ np.random.default_rng(0).standard_normal(features.shape[1])).ravel()
    rank = np.unique(np.round(projected / (np.std(projected) or 1.0), DIGITS), return_inverse=True)[1]
    is_held_out = rank % HELD_OUT_STRIDE == min(HELD_OUT_STRIDE // 2, int(rank.max()))
    return chosen[is_held_out], chosen[~is_held_out]


def _correlation(reconstructed: Array, predicted: Array, weights: Array) -> float:
    """Pearson's correlation of two sets of probabilities (n, classes), with weights (n,); 0 if one set is constant."""
    if min(np.ptp(reconstructed), np.ptp(predicted)) == 0:
        return 0.0
    covariance = np.cov(reconstructed.ravel(), predicted.ravel(), aweights=np.repeat(weights, predicted.shape[1]))
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))

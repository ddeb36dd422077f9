"""Losses of classifiers that are not trained by minimising one: of scores of all classes, and of probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from upweight.linear.losses.loss import Array, Derivatives, LinearLoss


class LogScoreLoss(LinearLoss):
    """−log p of the label, where p is the softmax of one score per class, such as a joint log-likelihood.

    Args:
        classes: the class labels.
        has_decision: whether the estimator has a decision function: for two classes, the difference of their scores.
    """

    name = "log loss"
    unit = "nats"
    coupled = True

    def __init__(self, classes: NDArray[Any], has_decision: bool = False) -> None:
        super().__init__(len(classes), classes)
        self.has_decision = has_decision

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss in nats and derivatives; targets are class positions."""
        log_p = log_softmax(z, axis=-1)
        positions = np.broadcast_to(targets, z.shape[:-1])[..., None]
        p = np.exp(log_p)
        loss = -np.take_along_axis(log_p, positions, axis=-1)[..., 0]
        return Derivatives(loss, p - (np.arange(self.outputs) == positions), p, p)

    def encode_positions(self, position: NDArray[np.intp]) -> NDArray[Any]:
        """Class positions, unchanged."""
        return position

    def expand(self, z: Array) -> Array:
        """The scores; for two classes and a decision function their difference, (…, 1)."""
        return z[..., 1:] - z[..., :1] if self.has_decision and self.outputs == 2 else z

    def probabilities(self, z: Array) -> Array:
        """Softmax of the scores."""
        return np.asarray(np.exp(log_softmax(z, axis=-1)))


class ProbabilityLoss(LinearLoss):
    """Half the Brier score ½ Σ (p − label)², for probabilities that may be 0, such as shares of votes."""

    name = "squared loss of probabilities"
    unit = "half squared error"
    is_quadratic = True

    def __init__(self, classes: NDArray[Any]) -> None:
        super().__init__(len(classes), classes)

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss and derivatives; targets are 1 for the label and 0 for other classes."""
        difference = z - targets
        return Derivatives(0.5 * (difference**2).sum(axis=-1), difference, np.ones_like(z))

    def encode_positions(self, position: NDArray[np.intp]) -> NDArray[Any]:
        """One column per class: 1 for the label, 0 for the others."""
        return np.asarray((position[:, None] == np.arange(self.outputs)).astype(np.float64))

    def probabilities(self, z: Array) -> Array:
        """The outputs themselves."""
        return z

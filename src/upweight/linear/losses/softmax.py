"""The multinomial cross-entropy, of softmax regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from upweight.linear.losses.loss import Array, Derivatives, LinearLoss


class SoftmaxLoss(LinearLoss):
    """Multinomial cross-entropy as a function of the differences z_c − z_C, c < C, from the output of the last class.

    Softmax depends on differences of outputs only, so this reference coding loses nothing. The Hessian loses its null
    direction, and has (C−1)/C as many columns. The squared norm of the C parameter vectors that sum to zero becomes
    Σ_ck (I − 11ᵀ/C)_ck θ_c·θ_k.
    """

    name = "cross-entropy (softmax)"
    unit = "nats"
    coupled = True

    def __init__(self, classes: NDArray[Any]) -> None:
        super().__init__(len(classes) - 1, classes)

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss in nats and derivatives; targets are class positions."""
        positions = np.broadcast_to(targets, z.shape[:-1])[..., None]
        label_output = np.take_along_axis(z, np.minimum(positions, self.outputs - 1), axis=-1)[..., 0]
        label_output = np.where(positions[..., 0] < self.outputs, label_output, 0.0)
        largest = np.maximum(z.max(axis=-1, keepdims=True), 0.0)
        p = np.exp(z - largest)
        total = p.sum(axis=-1, keepdims=True) + np.exp(-largest)
        p /= total
        loss = (np.log(total) + largest)[..., 0] - label_output
        return Derivatives(loss, p - (np.arange(self.outputs) == positions), p, p)

    def metric(self) -> Array:
        """I − 11ᵀ/C on the C − 1 differences."""
        return np.eye(self.outputs) - 1.0 / (self.outputs + 1)

    def coding(self) -> Array:
        """Logits that sum to zero, from the differences to the last one: (C, C − 1)."""
        return np.eye(self.outputs + 1, self.outputs) - 1.0 / (self.outputs + 1)

    def encode_positions(self, position: NDArray[np.intp]) -> NDArray[Any]:
        """Class positions, unchanged."""
        return position

    def expand(self, z: Array) -> Array:
        """All C logits, shifted so that they sum to zero, as in scikit-learn."""
        logits = np.concatenate([z, np.zeros((*z.shape[:-1], 1))], axis=-1)
        return np.asarray(logits - logits.mean(axis=-1, keepdims=True))

    def probabilities(self, z: Array) -> Array:
        """Softmax of the logits."""
        return np.asarray(np.exp(log_softmax(self.expand(z), axis=-1)))

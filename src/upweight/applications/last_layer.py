"""Influence on the last layer alone, for a softmax with cross-entropy (Ren, Yeh & Schwing 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.linear.conjugate_gradients import conjugate_gradients

Array = NDArray[np.float64]
TOLERANCE = 1e-6
MAX_STEPS = 200


@dataclass(frozen=True, eq=False)
class LastLayer:
    """Inputs, probabilities and errors of the last layer on some examples.

    Attributes:
        features: its inputs with a column of ones, (n, d + 1).
        probabilities: the softmax of its outputs, (n, classes).
        errors: the gradients of the cross-entropy in its outputs, (n, classes): probabilities minus targets.
    """

    features: Array
    probabilities: Array
    errors: Array

    @classmethod
    def of(cls, features: Array, probabilities: Array, classes: NDArray[np.intp]) -> LastLayer:
        """From features (n, d), probabilities (n, classes) and the position of each label among the classes (n,)."""
        inputs = np.column_stack([np.asarray(features, dtype=np.float64), np.ones(len(features))])
        errors = np.array(probabilities, dtype=np.float64)
        errors[np.arange(len(classes)), classes] -= 1.0
        return cls(inputs, np.asarray(probabilities, dtype=np.float64), errors)


def last_layer_slopes(train: LastLayer, weights: Array, validation: LastLayer, damping: float) -> Array:
    """The derivative of the mean −loss of validation examples in each weight of the training examples, (n,).

    ∇L_valᵀ (H + damping · I)⁻¹ ∇ℓᵢ / Σw over the weights and biases of the last layer, with all other parameters held
    fixed; H is the Hessian of the weighted mean loss Σ wᵢℓᵢ / Σw.
    """
    total = float(weights.sum())
    probabilities, inputs = train.probabilities, train.features
    shares = (weights / total)[:, None]

    def matvec(vectors: Array) -> Array:
        """(H + damping) v for v (1, d + 1, classes)."""
        outputs = inputs @ vectors[0]
        centred = outputs - (probabilities * outputs).sum(axis=1, keepdims=True)
        return np.asarray((inputs.T @ (shares * probabilities * centred))[None] + damping * vectors)

    gradient = (validation.features.T @ validation.errors / len(validation.features))[None]
    solved, _, _ = conjugate_gradients(matvec, lambda vectors: vectors, gradient, TOLERANCE, MAX_STEPS)
    directions = inputs @ solved[0]
    return np.asarray((directions * train.errors).sum(axis=1) / total)

"""A linear head on fixed features at the optimum of its l2 objective: a weighted sum of the training features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax

Array = NDArray[np.float64]
MAX_STEPS = 500  # trust-region steps at most
TOLERANCE = 1e-9  # largest entry of the gradient, in the coordinates of `_Objective`, at which the optimum is reached


@dataclass(frozen=True)
class RepresenterHead:
    """Logits Φ(x) = Σᵢ αᵢ fᵢ·f(x) + b of a head at its l2 optimum (Yeh et al. 2018, theorem 3.1).

    Attributes:
        alpha: αᵢ = −wᵢ ∂ℓᵢ/∂Φᵢ / (l2 Σw), (n, K).
        coefficients: Σᵢ αᵢ fᵢ, (d, K).
        intercept: b, which has no penalty and belongs to no example, (K,).
        unexplained: ‖W − Σᵢ αᵢ fᵢ‖ / ‖W‖ for the head W that the optimiser reached: 0 at the optimum.
    """

    alpha: Array
    coefficients: Array
    intercept: Array
    unexplained: float

    def logits(self, features: Any) -> Array:
        """Φ of every row of features, (m, K)."""
        return np.asarray(features @ self.coefficients) + self.intercept

    def probabilities(self, features: Any) -> Array:
        """Class probabilities of every row of features, (m, classes)."""
        return probabilities_of(self.logits(features))


def probabilities_of(logits: Array) -> Array:
    """Class probabilities (m, classes): one logit is that of the second of two classes."""
    if logits.shape[1] > 1:
        return np.asarray(softmax(logits, axis=1))
    positive = expit(logits)
    return np.hstack([1.0 - positive, positive])


def fit_head(features: Any, targets: Array, weights: Array, l2: float, intercept: bool = True) -> RepresenterHead:
    """Minimise Σ wᵢ ℓ(Φᵢ, tᵢ) / Σ w + l2/2 ‖W‖² over W and b, with the cross-entropy ℓ to target probabilities t.

    Args:
        features: (n, d), an array or a sparse matrix.
        targets: (n, classes), rows that sum to 1.
        weights: (n,), w.
        l2: above 0. Two classes have one logit, that of the second minus that of the first, and half of this l2.
        intercept: whether there is b; else it is 0.
    """
    if targets.shape[1] == 2:
        targets, l2 = targets[:, 1:], l2 / 2
    objective = _Objective(features, targets, weights, l2, intercept)
    optimum = minimize(
        objective.value,
        np.zeros(objective.size),
        jac=True,
        hessp=objective.hessian_product,
        method="trust-ncg",
        options={"gtol": TOLERANCE, "maxiter": MAX_STEPS},
    ).x
    coefficients, constant = objective.head(optimum)
    alpha = objective.negative_slopes(optimum) / l2
    explained = np.asarray(features.T @ alpha)
    distance = np.linalg.norm(explained - coefficients) / max(float(np.linalg.norm(coefficients)), 1e-300)
    return RepresenterHead(alpha, explained, constant, float(distance))


class _Objective:
    """The objective in coordinates of about unit curvature: columns are centred and divided by a scale."""

    def __init__(self, features: Any, targets: Array, weights: Array, l2: float, intercept: bool) -> None:
        self.features, self.targets, self.weights, self.l2 = features, targets, weights / weights.sum(), l2
        self._intercept = float(intercept)
        self._centre = self._intercept * np.asarray(self.weights @ features).ravel()
        squares = features.multiply(features) if hasattr(features, "multiply") else features**2
        variance = np.maximum(np.asarray(self.weights @ squares).ravel() - self._centre**2, 0.0)
        self._scale = 1.0 / np.sqrt(0.25 * variance + l2)
        self.size = (len(self._centre) + 1) * targets.shape[1]

    def head(self, flat: Array) -> tuple[Array, Array]:
        """(W, b) in the coordinates of the features."""
        coefficients, intercept = self._split(flat)
        return coefficients, intercept - self._centre @ coefficients

    def negative_slopes(self, flat: Array) -> Array:
        """−wᵢ ∂ℓᵢ/∂Φᵢ, (n, K)."""
        return np.asarray(self.weights[:, None] * (self.targets - self._predicted(self._logits(flat))))

    def value(self, flat: Array) -> tuple[float, Array]:
        """The objective and its gradient."""
        logits, coefficients = self._logits(flat), self._split(flat)[0]
        total = np.logaddexp(0.0, logits[:, 0]) if logits.shape[1] == 1 else logsumexp(logits, axis=1)
        loss = float(self.weights @ (total - (self.targets * logits).sum(axis=1)))
        slope = self._predicted(logits) - self.targets
        return loss + 0.5 * self.l2 * float((coefficients**2).sum()), self._pull_back(slope, coefficients)

    def hessian_product(self, flat: Array, direction: Array) -> Array:
        """The Hessian at `flat` times a direction."""
        predicted, moved = self._predicted(self._logits(flat)), self._logits(direction)
        mean = (predicted * moved).sum(axis=1, keepdims=True)
        return self._pull_back(predicted * (moved - mean), self._split(direction)[0])

    def _split(self, flat: Array) -> tuple[Array, Array]:
        table = flat.reshape(len(self._centre) + 1, -1)
        return self._scale[:, None] * table[:-1], self._intercept * table[-1]

    def _logits(self, flat: Array) -> Array:
        coefficients, intercept = self._split(flat)
        return np.asarray(self.features @ coefficients) - self._centre @ coefficients + intercept

    def _pull_back(self, slope: Array, coefficients: Array) -> Array:
        """The gradient in these coordinates, from derivatives by the logits (n, K) and the coefficients (d, K)."""
        weighted = self.weights[:, None] * slope
        total = weighted.sum(axis=0)
        data = np.asarray(self.features.T @ weighted) - self._centre[:, None] * total
        slopes = self._scale[:, None] * (data + self.l2 * coefficients)
        return np.vstack([slopes, self._intercept * total]).ravel()

    @staticmethod
    def _predicted(logits: Array) -> Array:
        return np.asarray(expit(logits) if logits.shape[1] == 1 else softmax(logits, axis=1))

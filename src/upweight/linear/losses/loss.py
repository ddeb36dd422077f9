"""The interface of a loss of K linear outputs, and its value with two derivatives on a batch.

The second derivative of every loss has the form `diag(a) − b bᵀ`, with b = 0 if the outputs do not interact. The
Hessian, its products and the leverages need nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NUMBERS = "biuf"  # kinds of dtypes


@dataclass(frozen=True)
class Derivatives:
    """Loss, gradient and second derivative of every example of a batch, with respect to its K outputs.

    Attributes:
        loss: (…,).
        gradient: r, (…, K).
        diagonal: a of the second derivative diag(a) − b bᵀ, (…, K).
        outer: b, (…, K); None if the outputs do not interact.
    """

    loss: Array
    gradient: Array
    diagonal: Array
    outer: Array | None = None

    def second(self, c: int, k: int) -> Array:
        """Entry (c, k) of every example's second derivative, shape (…,)."""
        entry = self.diagonal[..., c] if c == k else np.zeros_like(self.loss)
        return entry if self.outer is None else entry - self.outer[..., c] * self.outer[..., k]

    def apply(self, v: Array) -> Array:
        """Second derivative times v, both (…, K)."""
        product = self.diagonal * v
        if self.outer is not None:
            product -= self.outer * np.einsum("...c,...c->...", self.outer, v)[..., None]
        return product

    def select_groups(self, groups: NDArray[np.bool_]) -> Derivatives:
        """The derivatives of these groups alone; groups are the second axis."""
        outer = None if self.outer is None else self.outer[:, groups]
        return Derivatives(self.loss[:, groups], self.gradient[:, groups], self.diagonal[:, groups], outer)


@dataclass(frozen=True)
class Kinks:
    """The kinks of piecewise-linear losses of one output.

    Attributes:
        places: (n, b) outputs at which each loss has a kink, in ascending order.
        forces: (n, b + 1) −∂ℓ/∂z between them, in descending order.
    """

    places: Array
    forces: Array


def require_temperature(temperature: float) -> None:
    """Raise ValueError for a temperature of smoothing that is not above 0."""
    if not temperature > 0:
        raise ValueError(
            f"expected a smoothing temperature > 0, got {temperature}; a loss with kinks itself has no curvature"
        )


class LinearLoss(ABC):
    """A loss of K linear outputs.

    Args:
        outputs: K.
        classes: the class labels in the estimator's order; None for numeric targets.

    Attributes:
        name: for people.
        unit: the unit of the loss.
        coupled: whether the outputs interact in the second derivative.
        pairwise: whether each output is a binary classifier for one pair of classes.
        is_quadratic: whether the second derivative is the identity everywhere.
        is_likelihood: whether the loss is a negative log-likelihood (up to scale): its residuals have a variance.
        has_kinks: whether it smooths a loss that is linear between kinks.
        has_dispersion: whether the likelihood has a dispersion that is estimated from the residuals.
    """

    name: str
    unit: str
    coupled = False
    pairwise = False
    is_quadratic = False
    is_likelihood = True
    has_dispersion = False
    has_kinks = False

    def __init__(self, outputs: int, classes: NDArray[Any] | None = None) -> None:
        self.outputs = outputs
        self.classes = classes

    @abstractmethod
    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss and derivatives at outputs z (…, K); `targets` are encoded labels (see `encode`)."""

    def metric(self) -> Array:
        """M in the penalty l2/2 Σ_ck M_ck θ_c·θ_k, shape (K, K)."""
        return np.eye(self.outputs)

    def coding(self) -> Array:
        """The estimator's linear outputs from z, (estimator's outputs, K)."""
        return np.eye(self.outputs)

    def encode(self, y: NDArray[Any]) -> NDArray[Any]:
        """Labels or target values in the form that `at` takes. Raises ValueError for a label never trained on."""
        if self.classes is None:
            return np.asarray(y, dtype=np.float64).reshape(len(y), self.outputs)
        return self.encode_positions(self.class_positions(y))

    def class_positions(self, y: NDArray[Any]) -> NDArray[np.intp]:
        """Positions of the labels among the classes. Raises ValueError for a label never trained on."""
        if self.classes is None:
            raise TypeError(f"a model with {self.name} has no classes")
        if y.dtype.kind in NUMBERS and self.classes.dtype.kind in NUMBERS and y.ndim == 1:
            order = np.argsort(self.classes)
            found = order[np.searchsorted(self.classes, y, sorter=order).clip(max=len(order) - 1)]
            if (self.classes[found] == y).all():
                return np.asarray(found, dtype=np.intp)
        known = {label: position for position, label in enumerate(self.classes.tolist())}
        positions = [known.get(label) for label in y.tolist()]
        if None in positions:
            raise ValueError(
                f"expected labels among {list(known)[:12]}, got {y.tolist()[positions.index(None)]!r}; the model "
                "was never trained on that class, so its loss does not exist"
            )
        return np.array(positions, dtype=np.intp)

    def sharp(self) -> LinearLoss:
        """The twice differentiable loss nearest to the one that training minimised: itself, except for a hinge."""
        return self

    def kinks(self, targets: NDArray[Any]) -> Kinks:
        """The kinks of the loss that this one smooths, for the targets (n,) of one output. TypeError if it has none."""
        raise TypeError(f"{self.name} smooths no loss with kinks")

    def expected(self) -> LinearLoss:
        """The loss with the expected in place of the observed second derivative; itself if they are equal."""
        return self

    def residuals(self, z: Array, targets: NDArray[Any]) -> Array:
        """Target minus predicted mean, at outputs z (n, K)."""
        return -self.at(z, targets).gradient

    def encode_positions(self, position: NDArray[np.intp]) -> NDArray[Any]:
        """Class positions in the form that `at` takes: ±1 for one output, one column per class for several."""
        if self.outputs == 1:
            return np.where(position == 1, 1.0, -1.0)[:, None]
        return np.where(position[:, None] == np.arange(self.outputs), 1.0, -1.0)

    def expand(self, z: Array) -> Array:
        """The estimator's outputs (decision values or predicted means) from z, shape (…, columns)."""
        return z

    def decide(self, z: Array) -> NDArray[np.intp]:
        """Position of the predicted class for outputs z (n, K), shape (n,)."""
        decisions = self.expand(z)
        return np.asarray(decisions[:, 0] > 0 if decisions.shape[1] == 1 else decisions.argmax(axis=1), dtype=np.intp)

    def probabilities(self, z: Array) -> Array:
        """Class probabilities (…, classes). Raises TypeError if the loss defines none."""
        raise TypeError(
            f"a model with {self.name} has no probabilities; measure the loss, the margin or a function of the outputs"
        )

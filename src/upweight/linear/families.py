"""Families: the loss of one example as a function of its K linear outputs, with two derivatives.

Every family's second derivative has the form `diag(a) − b bᵀ` (b = 0 where outputs do not interact), which is
all that the Hessian, its products and the leverages need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax

Array = NDArray[np.float64]
SHARP = 1e-3  # temperature up to which a smooth hinge is taken for the hinge


@dataclass(frozen=True)
class Derivatives:
    """Loss (…,), gradient r (…, K) and second derivative diag(a) − b bᵀ of a batch; `outer` is b or None."""

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

    def of(self, groups: NDArray[np.bool_]) -> Derivatives:
        """The part of these groups, which are the second axis."""
        outer = None if self.outer is None else self.outer[:, groups]
        return Derivatives(self.loss[:, groups], self.gradient[:, groups], self.diagonal[:, groups], outer)


class LinearLoss(ABC):
    """A loss of K outputs; `targets` are what `encode` makes of labels."""

    name: str
    unit: str  # of the loss
    coupled = False  # whether outputs interact in the second derivative
    pairwise = False  # whether outputs are machines for pairs of classes
    constant = False  # whether the second derivative is the identity wherever it is taken

    def __init__(self, outputs: int, classes: NDArray[Any] | None = None) -> None:
        self.outputs = outputs
        self.classes = classes

    @abstractmethod
    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss and derivatives at outputs z (…, K)."""

    def metric(self) -> Array:
        """M in the penalty l2/2 Σ_ck M_ck θ_c·θ_k, shape (K, K)."""
        return np.eye(self.outputs)

    def encode(self, y: NDArray[Any]) -> NDArray[Any]:
        """Labels or target values in the form that `at` takes. Raises ValueError for a label never trained on."""
        if self.classes is None:
            return np.asarray(y, dtype=np.float64).reshape(len(y), self.outputs)
        return self.encode_places(self.places(y))

    def places(self, y: NDArray[Any]) -> NDArray[np.intp]:
        """Positions of the labels among the classes. Raises ValueError for a label never trained on."""
        if self.classes is None:
            raise TypeError(f"a model with {self.name} has no classes")
        known = {label: place for place, label in enumerate(self.classes.tolist())}
        places = [known.get(label) for label in y.tolist()]
        if None in places:
            raise ValueError(
                f"expected labels among {list(known)[:12]}, got {y.tolist()[places.index(None)]!r}; the model "
                "was never trained on that class, so its loss does not exist"
            )
        return np.array(places, dtype=np.intp)

    def sharp(self) -> LinearLoss:
        """The loss that training minimised, as nearly as it has derivatives: this one, but for a smoothed hinge."""
        return self

    def encode_places(self, place: NDArray[np.intp]) -> NDArray[Any]:
        """Class positions in the form that `at` takes: ±1 for one output, one machine per class otherwise."""
        if self.outputs == 1:
            return np.where(place == 1, 1.0, -1.0)[:, None]
        return np.where(place[:, None] == np.arange(self.outputs), 1.0, -1.0)

    def expand(self, z: Array) -> Array:
        """The estimator's own outputs (decision values, predicted means) from z, shape (…, columns)."""
        return z

    def decide(self, z: Array) -> NDArray[np.intp]:
        """Position of the class that outputs z (n, K) speak for, (n,)."""
        said = self.expand(z)
        return np.asarray(said[:, 0] > 0 if said.shape[1] == 1 else said.argmax(axis=1), dtype=np.intp)

    def probabilities(self, z: Array) -> Array:
        """Class probabilities (…, classes). Raises TypeError where the model has none."""
        raise TypeError(
            f"a model with {self.name} has no probabilities; measure the loss, the margin or a function of the outputs"
        )


class SquaredLoss(LinearLoss):
    """½ Σ (z − t)²: least squares, ridge, and ridge on ±1 labels."""

    name = "squared loss"
    unit = "half squared error"
    constant = True

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss and derivatives; the second is the identity."""
        difference = z - targets
        return Derivatives(0.5 * (difference**2).sum(axis=-1), difference, np.ones_like(z))


class SoftmaxLoss(LinearLoss):
    """Multinomial cross-entropy, with the last class as reference: z_c − z_C for c < C.

    Softmax sees differences of outputs only, so the reference coding loses nothing, removes the null direction of the
    Hessian, and makes it (C−1)/C as wide. ‖θ‖² of the C zero-sum vectors becomes Σ_ck (I − 11ᵀ/C)_ck θ_c·θ_k.
    """

    name = "cross-entropy (softmax)"
    unit = "nats"
    coupled = True

    def __init__(self, classes: NDArray[Any]) -> None:
        super().__init__(len(classes) - 1, classes)

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss and derivatives in nats; targets are class positions."""
        places = np.broadcast_to(targets, z.shape[:-1])[..., None]
        own = np.take_along_axis(z, np.minimum(places, self.outputs - 1), axis=-1)[..., 0]
        own = np.where(places[..., 0] < self.outputs, own, 0.0)
        largest = np.maximum(z.max(axis=-1, keepdims=True), 0.0)
        p = np.exp(z - largest)
        total = p.sum(axis=-1, keepdims=True) + np.exp(-largest)
        p /= total
        loss = (np.log(total) + largest)[..., 0] - own
        return Derivatives(loss, p - (np.arange(self.outputs) == places), p, p)

    def metric(self) -> Array:
        """I − 11ᵀ/C on the C − 1 differences."""
        return np.eye(self.outputs) - 1.0 / (self.outputs + 1)

    def encode_places(self, place: NDArray[np.intp]) -> NDArray[Any]:
        """Class positions as they are."""
        return place

    def expand(self, z: Array) -> Array:
        """All C logits; they sum to zero, as scikit-learn's do."""
        full = np.concatenate([z, np.zeros((*z.shape[:-1], 1))], axis=-1)
        return np.asarray(full - full.mean(axis=-1, keepdims=True))

    def probabilities(self, z: Array) -> Array:
        """Softmax of the logits."""
        return np.asarray(np.exp(log_softmax(self.expand(z), axis=-1)))


class _BinaryLosses(LinearLoss):
    """K two-class machines φ(t z) with t ∈ {−1, +1}, or 0 where a machine does not see the example."""

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Sum of the machines' losses; derivatives by the chain rule."""
        loss, slope, bend = self.phi(targets * z)
        seen = targets != 0
        return Derivatives((loss * seen).sum(axis=-1), slope * targets, bend * seen)

    @abstractmethod
    def phi(self, s: Array) -> tuple[Array, Array, Array]:
        """φ, φ′, φ″ of the signed output s = t z."""


class LogisticLoss(_BinaryLosses):
    """log(1 + exp(−t z)): two classes, or one machine per class (one against the rest)."""

    name = "logistic loss"
    unit = "nats"

    def phi(self, s: Array) -> tuple[Array, Array, Array]:
        """Loss in nats and derivatives."""
        p = expit(-s)
        return np.logaddexp(0.0, -s), -p, p * (1.0 - p)

    def probabilities(self, z: Array) -> Array:
        """Sigmoid; with several machines normalised to sum to one, as scikit-learn does."""
        if self.outputs == 1:
            return np.concatenate([expit(-z), expit(z)], axis=-1)
        p = expit(z)
        return np.asarray(p / p.sum(axis=-1, keepdims=True))


class SquaredHingeLoss(_BinaryLosses):
    """max(0, 1 − t z)²."""

    name = "squared hinge loss"
    unit = "squared hinge"

    def phi(self, s: Array) -> tuple[Array, Array, Array]:
        """Loss and (generalised) derivatives."""
        slack = np.maximum(0.0, 1.0 - s)
        return np.asarray(slack**2), -2.0 * slack, np.asarray(2.0 * (slack > 0))


class SmoothHingeLoss(_BinaryLosses):
    """t·log(1 + exp((1 − s)/t)) → max(0, 1 − s) for t → 0 (Koh & Liang 2017, §4.3)."""

    name = "smoothed hinge loss"
    unit = "hinge"

    def __init__(self, outputs: int, classes: NDArray[Any] | None, temperature: float, pairs: Any = None) -> None:
        super().__init__(outputs, classes)
        if not temperature > 0:
            raise ValueError(
                f"expected a smoothing temperature > 0, got {temperature}; the hinge itself has no curvature"
            )
        self.temperature = temperature
        self.pairs = pairs
        self.pairwise = pairs is not None

    def sharp(self) -> SmoothHingeLoss:
        """The same hinge, smoothed so little that the optimum of the hinge itself is nearly its own."""
        return SmoothHingeLoss(self.outputs, self.classes, min(self.temperature, SHARP), self.pairs)

    def phi(self, s: Array) -> tuple[Array, Array, Array]:
        """Loss and derivatives at this temperature."""
        u = (1.0 - s) / self.temperature
        p = expit(u)
        return np.asarray(self.temperature * np.logaddexp(0.0, u)), -p, np.asarray(p * (1.0 - p) / self.temperature)

    def decide(self, z: Array) -> NDArray[np.intp]:
        """The class that most pairs vote for, the first of equals."""
        if self.pairs is None:
            return super().decide(z)
        votes = np.zeros((len(z), int(self.pairs.max()) + 1))
        for machine, (first, second) in enumerate(self.pairs):
            votes[np.arange(len(z)), np.where(z[:, machine] > 0, first, second)] += 1
        return np.asarray(votes.argmax(axis=1))

    def encode_places(self, place: NDArray[np.intp]) -> NDArray[Any]:
        """One machine per pair of classes where there are pairs: +1 the first, −1 the second, 0 neither."""
        if self.pairs is None:
            return LinearLoss.encode_places(self, place)
        first, second = self.pairs.T
        return np.asarray((place[:, None] == first) * 1.0 - (place[:, None] == second) * 1.0)


class TweedieLoss(LinearLoss):
    """Half the unit deviance of power p (0 normal, 1 Poisson, 2 gamma) under a log or identity link.

    Source: Jørgensen, The Theory of Dispersion Models (1997); scikit-learn's HalfTweedieLoss.
    """

    name = "half deviance"
    unit = "half deviance"

    def __init__(self, power: float, log_link: bool) -> None:
        super().__init__(1)
        self.power = power
        self.log_link = log_link

    def at(self, z: Array, targets: NDArray[Any]) -> Derivatives:
        """Loss and derivatives with respect to the linear output."""
        p, y = self.power, targets
        mu = np.exp(z) if self.log_link else z
        if p == 0 and not self.log_link:
            return Derivatives(self._half_deviance(mu, y)[..., 0], mu - y, np.ones_like(mu))
        if self.log_link:
            first = mu ** (2 - p) - y * mu ** (1 - p)
            second = (2 - p) * mu ** (2 - p) - (1 - p) * y * mu ** (1 - p)
        else:
            first = mu ** (1 - p) - y * mu**-p
            second = (1 - p) * mu**-p + p * y * mu ** (-p - 1)
        return Derivatives(self._half_deviance(mu, y)[..., 0], first, second)

    def _half_deviance(self, mu: Array, y: Array) -> Array:
        p = self.power
        if p == 0:
            return np.asarray(0.5 * (y - mu) ** 2)
        if p == 1:
            return np.where(y > 0, y * np.log(np.where(y > 0, y, 1.0) / mu), 0.0) - y + mu
        if p == 2:
            return y / mu - np.log(y / mu) - 1.0
        start = np.maximum(y, 0.0) ** (2 - p) / ((1 - p) * (2 - p))
        return start - y * mu ** (1 - p) / (1 - p) + mu ** (2 - p) / (2 - p)

    def expand(self, z: Array) -> Array:
        """The predicted mean."""
        return np.exp(z) if self.log_link else z

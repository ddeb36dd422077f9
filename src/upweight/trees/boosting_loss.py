"""What boosting needs of a training loss: gradient and second derivative as libraries sum them, and how both move.

Outputs come first in every array: z (K, n) or (K, n, …), so that one output is one contiguous block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LossGradient:
    """Loss (m,) and gradient (m, K) of a batch, examples first."""

    loss: Array
    gradient: Array


class BoostingLoss(ABC):
    """A training loss of K outputs z and targets t (what `encode` makes of labels, K first too)."""

    name: str
    unit: str
    coupled = False  # whether the classes share one distribution
    pairwise = False
    differentiable = True  # whether leaf values are smooth functions of example weights

    def __init__(self, outputs: int = 1, classes: NDArray[Any] | None = None) -> None:
        self.outputs = outputs
        self.classes = None if classes is None else np.asarray(classes)

    @abstractmethod
    def value(self, z: Array, t: Array) -> Array:
        """The loss, without the axis of outputs."""

    @abstractmethod
    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """(gradient, second derivative), both like z; the second as the library sums it, which may be rescaled."""

    @abstractmethod
    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """How both move when z moves by dz: directional derivatives; None for a second that stays."""

    def derivatives_vjp(self, z: Array, t: Array, dg: Array, dh: Array) -> Array:
        """The transpose of `derivatives_jvp`: ∂/∂z of ⟨gradient, dg⟩ + ⟨second, dh⟩; here for elementwise losses."""
        first, second = self.derivatives_jvp(z, t, np.ones_like(z))
        return first * dg if second is None else first * dg + second * dh

    def link(self, mean: Array) -> Array:
        """The constant outputs that fit targets of this mean (K, …) best, up to what the loss does not see."""
        return mean

    def link_slope(self, mean: Array) -> Array:
        """∂link/∂mean, elementwise."""
        return np.ones_like(mean)

    def at(self, z: Array, targets: Array) -> LossGradient:
        """Loss and gradient for z (m, K) and what `encode` gave, examples first: what measurements ask for."""
        turned = np.ascontiguousarray(np.asarray(z, dtype=np.float64).T)
        return LossGradient(self.value(turned, targets.T), np.asarray(self.derivatives(turned, targets.T)[0].T))

    def encode(self, y: NDArray[Any]) -> Array:
        """Targets (n, K): amounts as they are, classes as 0 and 1."""
        if self.classes is None:
            if np.asarray(y).dtype.kind not in "fiub":
                raise ValueError(f"expected numbers as labels for {self.name}, got {np.asarray(y).dtype}")
            return np.asarray(y, dtype=np.float64).reshape(len(y), self.outputs)
        place = self.places(y)
        if self.outputs == 1:
            return np.asarray(place == 1, dtype=np.float64)[:, None]
        return np.asarray(place[:, None] == np.arange(self.outputs), dtype=np.float64)

    def places(self, y: NDArray[Any]) -> NDArray[np.intp]:
        """Positions of the labels among the classes. Raises ValueError for a label never trained on."""
        if self.classes is None:
            raise TypeError(f"a model with {self.name} has no classes")
        known = {label: place for place, label in enumerate(self.classes.tolist())}
        places = [known.get(label) for label in np.asarray(y).tolist()]
        if None in places:
            raise ValueError(
                f"expected labels among {list(known)[:12]}, got {np.asarray(y).tolist()[places.index(None)]!r}; the "
                "model was never trained on that class, so its loss does not exist"
            )
        return np.array(places, dtype=np.intp)

    def expand(self, z: Array) -> Array:
        """The margins themselves."""
        return z

    def probabilities(self, z: Array) -> Array:
        """Class probabilities (m, classes) of margins (m, K). Raises TypeError where there are no classes."""
        raise TypeError(f"a model with {self.name} has no classes and so no probabilities; measure the loss instead")

    def predict(self, z: Array) -> list[Any]:
        """What margins (m, K) say, as labels or amounts."""
        if self.classes is None:
            return list(self.mean(z)[:, 0].tolist())
        return list(self.classes[self.probabilities(z).argmax(axis=1)].tolist())

    def mean(self, z: Array) -> Array:
        """The predicted amount for margins (m, K)."""
        return z

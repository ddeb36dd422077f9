"""BoostingLoss: the training loss of boosted trees, with the derivatives that libraries sum in every leaf.

Outputs are the first axis of every array: z is (K, n) or (K, n, …), so that one output is one contiguous block.
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
    """Loss (m,) and gradient (m, K) of a batch; examples are the first axis."""

    loss: Array
    gradient: Array


class BoostingLoss(ABC):
    """A training loss of K outputs z and targets t. Targets are `encode(labels)` transposed, so that K comes first."""

    name: str
    unit: str
    coupled = False  # whether the classes share one distribution, as in softmax
    pairwise = False  # whether outputs belong to pairs of classes; never so for trees
    differentiable = True  # whether leaf values are smooth functions of example weights

    def __init__(self, outputs: int = 1, classes: NDArray[Any] | None = None) -> None:
        self.outputs = outputs
        self.classes = None if classes is None else np.asarray(classes)

    @abstractmethod
    def value(self, z: Array, t: Array) -> Array:
        """The loss of every example; the axis of outputs is gone."""

    @abstractmethod
    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """(gradient, second derivative), shaped like z. The second is as the library sums it, which may be rescaled."""

    @abstractmethod
    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """The directional derivatives of both along dz; None if the second derivative is constant."""

    def derivatives_vjp(self, z: Array, t: Array, dg: Array, dh: Array) -> Array:
        """∂/∂z of ⟨gradient, dg⟩ + ⟨second derivative, dh⟩: the transpose of `derivatives_jvp`.

        This default is for elementwise losses.
        """
        first, second = self.derivatives_jvp(z, t, np.ones_like(z))
        return first * dg if second is None else first * dg + second * dh

    def mixed_derivative(self, gradient: Array, t: Array, first: int, second: int) -> Array:
        """∂²loss/∂z_first ∂z_second (n, …) where the gradient (K, n, …) is known; for leaves solved for jointly."""
        raise NotImplementedError(f"{self.name} has no outputs that are solved for jointly")

    def link(self, mean: Array) -> Array:
        """The constant outputs that fit targets of this mean (K, …) best, up to shifts that the loss does not see."""
        return mean

    def link_slope(self, mean: Array) -> Array:
        """∂link/∂mean, elementwise."""
        return np.ones_like(mean)

    def at(self, z: Array, targets: Array) -> LossGradient:
        """Loss and gradient at z (m, K) for encoded targets (m, K), as measurements need them."""
        outputs_first = np.ascontiguousarray(np.asarray(z, dtype=np.float64).T)
        gradient = self.derivatives(outputs_first, targets.T)[0]
        return LossGradient(self.value(outputs_first, targets.T), np.asarray(gradient.T))

    def encode(self, y: NDArray[Any]) -> Array:
        """Targets (n, K): numbers unchanged, classes as 0 and 1."""
        if self.classes is None:
            if np.asarray(y).dtype.kind not in "fiub":
                raise ValueError(
                    f"expected numbers as labels for {self.name}, got {np.asarray(y).dtype}; pass the labels that the "
                    "model was fitted on"
                )
            return np.asarray(y, dtype=np.float64).reshape(len(y), self.outputs)
        positions = self.class_positions(y)
        if self.outputs == 1:
            return np.asarray(positions == 1, dtype=np.float64)[:, None]
        return np.asarray(positions[:, None] == np.arange(self.outputs), dtype=np.float64)

    def class_positions(self, y: NDArray[Any]) -> NDArray[np.intp]:
        """The positions of the labels among the classes. Raises ValueError for a label that was never trained on."""
        if self.classes is None:
            raise TypeError(f"a model with {self.name} has no classes")
        position_of = {label: position for position, label in enumerate(self.classes.tolist())}
        positions = [position_of.get(label) for label in np.asarray(y).tolist()]
        if None in positions:
            unknown = np.asarray(y).tolist()[positions.index(None)]
            raise ValueError(
                f"expected labels among {list(position_of)[:12]}, got {unknown!r}; the model was never trained on that "
                "class, so its loss is not defined"
            )
        return np.array(positions, dtype=np.intp)

    def expand(self, z: Array) -> Array:
        """The outputs that a measurement function receives: the margins themselves."""
        return z

    def probabilities(self, z: Array) -> Array:
        """Class probabilities (m, classes) from margins (m, K). Raises TypeError if there are no classes."""
        raise TypeError(f"a model with {self.name} has no classes and so no probabilities; measure the loss instead")

    def predict(self, z: Array) -> list[Any]:
        """The predicted labels or numbers for margins (m, K)."""
        if self.classes is None:
            means = self.mean(z)
            return list(means[:, 0].tolist()) if self.outputs == 1 else [tuple(row) for row in means.tolist()]
        return list(self.classes[self.probabilities(z).argmax(axis=1)].tolist())

    def mean(self, z: Array) -> Array:
        """The predicted mean for margins (m, K)."""
        return z


class LogLinkLoss(BoostingLoss):
    """A loss whose mean is exp(z)."""

    unit = "nats"

    def link(self, mean: Array) -> Array:
        """The constant output with the smallest loss on targets of this mean."""
        return np.log(np.maximum(mean, 1e-300))

    def link_slope(self, mean: Array) -> Array:
        """The derivative of `link`."""
        return np.asarray(1.0 / np.maximum(mean, 1e-300))

    def mean(self, z: Array) -> Array:
        """The predicted mean."""
        return np.exp(z)

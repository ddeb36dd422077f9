"""The losses of boosted trees; outputs come first in every array, as in `loss.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, softmax

from upweight.trees.boosting_loss import BoostingLoss

Array = NDArray[np.float64]


class Squared(BoostingLoss):
    """½ Σ (z − t)²; with classes, of the distance to 0 and 1 (half the Brier score), as forests fit them."""

    name = "squared loss"
    unit = "half squared error"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray(0.5 * ((z - t) ** 2).sum(axis=0))

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        return z - t, np.ones_like(z)

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """How both move."""
        return dz, None

    def probabilities(self, z: Array) -> Array:
        """The outputs themselves, where they are class frequencies."""
        return z if self.classes is not None else super().probabilities(z)


class Logistic(BoostingLoss):
    """log(1 + exp(−±σz)) for two classes; σ is 1 everywhere but in LightGBM, where it can be set."""

    name = "logistic loss"
    unit = "nats"

    def __init__(self, classes: NDArray[Any], sigmoid: float = 1.0) -> None:
        super().__init__(1, classes)
        self.sigmoid = sigmoid

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray(np.logaddexp(0.0, np.where(t > 0.5, -self.sigmoid, self.sigmoid) * z)[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        p = _expit(z * self.sigmoid if self.sigmoid != 1.0 else z)
        g = p - t
        p -= p * p
        if self.sigmoid != 1.0:
            g, p = g * self.sigmoid, p * self.sigmoid**2
        return g, p

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """How both move."""
        p = _expit(z * self.sigmoid if self.sigmoid != 1.0 else z)
        moved = p * (self.sigmoid**2 * dz)
        moved -= moved * p
        return moved, moved * (self.sigmoid - (2.0 * self.sigmoid) * p)

    def link(self, mean: Array) -> Array:
        """The best constant."""
        return np.asarray((np.log(mean) - np.log1p(-mean)) / self.sigmoid)

    def link_slope(self, mean: Array) -> Array:
        """Its derivative."""
        return np.asarray(1.0 / (mean * (1.0 - mean) * self.sigmoid))

    def probabilities(self, z: Array) -> Array:
        """Class probabilities (m, classes)."""
        p = expit(z * self.sigmoid)
        return np.hstack([1 - p, p])


class Softmax(BoostingLoss):
    """Cross-entropy of softmax over all classes; libraries sum `factor`·p(1 − p), the second derivative's diagonal.

    XGBoost's factor is 2, LightGBM's and GradientBoosting's K/(K − 1), HistGradientBoosting's and CatBoost's 1.
    """

    name = "cross-entropy (softmax)"
    unit = "nats"
    coupled = True

    def __init__(self, classes: NDArray[Any], factor: float = 1.0) -> None:
        super().__init__(len(classes), classes)
        self.factor = factor

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray(-(log_softmax(z, axis=0) * t).sum(axis=0))

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        p = softmax(z, axis=0)
        return p - t, self.factor * p * (1 - p)

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """How both move."""
        p = softmax(z, axis=0)
        dp = p * (dz - (p * dz).sum(axis=0))
        return dp, self.factor * (1 - 2 * p) * dp

    def derivatives_vjp(self, z: Array, t: Array, dg: Array, dh: Array) -> Array:
        """The same product: p is coupled symmetrically."""
        p = softmax(z, axis=0)
        v = dg + self.factor * (1 - 2 * p) * dh
        return np.asarray(p * (v - (p * v).sum(axis=0)))

    def link(self, mean: Array) -> Array:
        """The best constant."""
        return np.log(np.maximum(mean, 1e-300))

    def link_slope(self, mean: Array) -> Array:
        """Its derivative."""
        return np.asarray(1.0 / np.maximum(mean, 1e-300))

    def probabilities(self, z: Array) -> Array:
        """Class probabilities (m, classes)."""
        return np.asarray(softmax(z, axis=1))


class Poisson(BoostingLoss):
    """exp(z) − t z; XGBoost and LightGBM sum exp(z + `padding`) as its second derivative (.7 by default)."""

    name = "Poisson loss"
    unit = "nats"

    def __init__(self, padding: float = 0.0) -> None:
        super().__init__(1)
        self.padding = padding

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray((np.exp(z) - t * z)[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        mean = np.exp(z)
        return mean - t, mean * np.exp(self.padding)

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """How both move."""
        moved = np.exp(z) * dz
        return moved, moved * np.exp(self.padding)

    def link(self, mean: Array) -> Array:
        """The best constant."""
        return np.log(np.maximum(mean, 1e-300))

    def link_slope(self, mean: Array) -> Array:
        """Its derivative."""
        return np.asarray(1.0 / np.maximum(mean, 1e-300))

    def mean(self, z: Array) -> Array:
        """The predicted amount."""
        return np.exp(z)


class Quantile(BoostingLoss):
    """The pinball loss at level α. Leaf values are order statistics: no derivative, no sums to replay."""

    unit = "pinball"
    differentiable = False

    def __init__(self, alpha: float = 0.5) -> None:
        super().__init__(1)
        self.alpha = alpha
        self.name = f"quantile loss ({alpha:g})"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        off = t - z
        return np.asarray(np.maximum(self.alpha * off, (self.alpha - 1) * off)[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        return np.where(z >= t, 1 - self.alpha, -self.alpha), np.ones_like(z)

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """How both move."""
        return np.zeros_like(z), None


class Custom(BoostingLoss):
    """A user's own loss of one output: `gradient`, `hessian` and `third` are f(z, t) -> array, elementwise.

    `loss` is f(z, t) too; without it the measurement must be a function of the outputs.
    """

    unit = "own"

    def __init__(
        self,
        gradient: Callable[[Array, Array], Array],
        hessian: Callable[[Array, Array], Array],
        third: Callable[[Array, Array], Array],
        loss: Callable[[Array, Array], Array] | None = None,
        name: str = "a loss of your own",
    ) -> None:
        super().__init__(1)
        self.elementwise_derivatives = gradient, hessian, third
        self.own, self.name = loss, name

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        if self.own is None:
            raise ValueError("the loss was given by its derivatives alone; pass loss= too, or measure= a function")
        return np.asarray(np.asarray(self.own(z, t))[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        return np.asarray(self.elementwise_derivatives[0](z, t)), np.asarray(self.elementwise_derivatives[1](z, t))

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """How both move."""
        return np.asarray(self.elementwise_derivatives[1](z, t)) * dz, np.asarray(
            self.elementwise_derivatives[2](z, t)
        ) * dz


def _expit(z: Array) -> Array:
    """1 / (1 + exp(−z)), several times as fast as scipy's on large arrays: numpy's exp is vectorised."""
    out = np.negative(z)
    with np.errstate(over="ignore"):  # exp(−z) = ∞ gives 0, as it should
        np.exp(out, out=out)
    out += 1.0
    return np.reciprocal(out, out=out)

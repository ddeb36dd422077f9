"""The losses that boosted trees are trained on. Outputs are the first axis of every array, as in `boosting_loss.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, softmax

from upweight.trees.boosting_loss import BoostingLoss, LogLinkLoss

Array = NDArray[np.float64]


class Squared(BoostingLoss):
    """½ Σ (z − t)². With classes, targets are 0 and 1: half the Brier score, which forests minimise."""

    name = "squared loss"
    unit = "half squared error"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray(0.5 * ((z - t) ** 2).sum(axis=0))

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        return z - t, np.ones_like(z)

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """Directional derivatives of the gradient and the second derivative along dz."""
        return dz, None

    def probabilities(self, z: Array) -> Array:
        """The outputs themselves: in a forest they are class frequencies."""
        return z if self.classes is not None else super().probabilities(z)


class Logistic(BoostingLoss):
    """log(1 + exp(∓σz)) for two classes. σ is 1, except in LightGBM, where it can be set (`sigmoid`)."""

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
        """Directional derivatives of the gradient and the second derivative along dz."""
        p = _expit(z * self.sigmoid if self.sigmoid != 1.0 else z)
        gradient_change = p * (self.sigmoid**2 * dz)
        gradient_change -= gradient_change * p
        return gradient_change, gradient_change * (self.sigmoid - (2.0 * self.sigmoid) * p)

    def link(self, mean: Array) -> Array:
        """The constant output with the smallest loss on targets of this mean."""
        return np.asarray((np.log(mean) - np.log1p(-mean)) / self.sigmoid)

    def link_slope(self, mean: Array) -> Array:
        """The derivative of `link`."""
        return np.asarray(1.0 / (mean * (1.0 - mean) * self.sigmoid))

    def probabilities(self, z: Array) -> Array:
        """Class probabilities (m, classes)."""
        p = expit(z * self.sigmoid)
        return np.hstack([1 - p, p])


class Softmax(BoostingLoss):
    """Cross-entropy of softmax over all classes.

    Libraries sum `factor`·p(1 − p), a multiple of the second derivative's diagonal. The factor is 2 in XGBoost,
    K/(K − 1) in LightGBM and GradientBoosting, and 1 in HistGradientBoosting and CatBoost.
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

    def mixed_derivative(self, gradient: Array, t: Array, first: int, second: int) -> Array:
        """An entry of diag(p) − p pᵀ with p = gradient + t."""
        p, other = gradient[first] + t[first], gradient[second] + t[second]
        return np.asarray(p * (1 - p) if first == second else -p * other)

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """Directional derivatives of the gradient and the second derivative along dz."""
        p = softmax(z, axis=0)
        dp = p * (dz - (p * dz).sum(axis=0))
        return dp, self.factor * (1 - 2 * p) * dp

    def derivatives_vjp(self, z: Array, t: Array, dg: Array, dh: Array) -> Array:
        """The transposed product; the Jacobian of softmax is symmetric."""
        p = softmax(z, axis=0)
        v = dg + self.factor * (1 - 2 * p) * dh
        return np.asarray(p * (v - (p * v).sum(axis=0)))

    def link(self, mean: Array) -> Array:
        """The constant output with the smallest loss on targets of this mean."""
        return np.log(np.maximum(mean, 1e-300))

    def link_slope(self, mean: Array) -> Array:
        """The derivative of `link`."""
        return np.asarray(1.0 / np.maximum(mean, 1e-300))

    def probabilities(self, z: Array) -> Array:
        """Class probabilities (m, classes)."""
        return np.asarray(softmax(z, axis=1))


class OneVsAll(BoostingLoss):
    """One logistic loss per class, Σ_k log(1 + exp(∓σ z_k)). σ is 1, except in LightGBM, where it can be set."""

    name = "logistic loss of one class against all others"
    unit = "nats"

    def __init__(self, classes: NDArray[Any], sigmoid: float = 1.0) -> None:
        super().__init__(len(classes), classes)
        self.sigmoid = sigmoid
        self.binary = Logistic(np.array([0, 1]), sigmoid)

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray(np.logaddexp(0.0, np.where(t > 0.5, -self.sigmoid, self.sigmoid) * z).sum(axis=0))

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        return self.binary.derivatives(z, t)

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """Directional derivatives of the gradient and the second derivative along dz."""
        return self.binary.derivatives_jvp(z, t, dz)

    def link(self, mean: Array) -> Array:
        """The constant output with the smallest loss on targets of this mean."""
        return self.binary.link(mean)

    def link_slope(self, mean: Array) -> Array:
        """The derivative of `link`."""
        return self.binary.link_slope(mean)

    def probabilities(self, z: Array) -> Array:
        """The probability of each class against all others (m, classes); a row need not sum to 1."""
        return np.asarray(expit(z * self.sigmoid))


class Poisson(LogLinkLoss):
    """exp(z) − t z. XGBoost and LightGBM sum exp(z + `padding`) as its second derivative (their default is .7)."""

    name = "Poisson loss"

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
        """Directional derivatives of the gradient and the second derivative along dz."""
        gradient_change = np.exp(z) * dz
        return gradient_change, gradient_change * np.exp(self.padding)


class Quantile(BoostingLoss):
    """The pinball loss at level α.

    Its leaf values are order statistics, not sums over examples: they have no derivatives, and are not replayed.
    """

    unit = "pinball"
    differentiable = False

    def __init__(self, alpha: float = 0.5) -> None:
        super().__init__(1)
        self.alpha = alpha
        self.name = f"quantile loss ({alpha:g})"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        residual = t - z
        return np.asarray(np.maximum(self.alpha * residual, (self.alpha - 1) * residual)[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        return np.where(z >= t, 1 - self.alpha, -self.alpha), np.ones_like(z)

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """Directional derivatives of the gradient and the second derivative along dz."""
        return np.zeros_like(z), None


class Custom(BoostingLoss):
    """A loss of the user's own with one output, for `uw.explainable(booster, train, loss=…)`.

    Args:
        gradient: first derivative f(z, t) -> array, elementwise.
        hessian: second derivative, likewise.
        third: third derivative, likewise.
        loss: the loss itself, likewise. Without it, `measure=` has to be a function of the outputs.
        name: the name of the loss in messages.
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
        self.loss_function, self.name = loss, name

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        if self.loss_function is None:
            raise ValueError(
                "expected the loss itself, got only its derivatives; pass loss= to Custom, or a function as measure="
            )
        return np.asarray(np.asarray(self.loss_function(z, t))[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        return np.asarray(self.elementwise_derivatives[0](z, t)), np.asarray(self.elementwise_derivatives[1](z, t))

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """Directional derivatives of the gradient and the second derivative along dz."""
        return np.asarray(self.elementwise_derivatives[1](z, t)) * dz, np.asarray(
            self.elementwise_derivatives[2](z, t)
        ) * dz


def _expit(z: Array) -> Array:
    """1 / (1 + exp(−z)), several times faster than scipy's on large arrays because numpy's exp is vectorised."""
    out = np.negative(z)
    with np.errstate(over="ignore"):  # exp(−z) = ∞ gives 0, which is right
        np.exp(out, out=out)
    out += 1.0
    return np.reciprocal(out, out=out)

"""Losses of a residual r = z − t with two derivatives: Huber, pseudo-Huber, Fair, expectile, log-cosh and |r|^q.

Outputs are the first axis of every array, as in `boosting_loss.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upweight.trees.elementwise_losses import ElementwiseLoss

Array = NDArray[np.float64]


class Huber(ElementwiseLoss):
    """½ r² for residuals |r| ≤ δ, and δ(|r| − ½ δ) beyond.

    Libraries sum 1 as the second derivative of an example within δ. `outside` is what they sum beyond: 1 in LightGBM,
    0 in CatBoost. Both are constant, except that an example can cross δ.
    """

    unit = "Huber loss"

    def __init__(self, delta: float = 1.0, outside: float = 1.0) -> None:
        super().__init__(1)
        self.delta, self.outside = delta, outside
        self.name = f"Huber loss (δ = {delta:g})"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        distance = np.abs(z - t)
        near = np.minimum(distance, self.delta)
        return np.asarray((0.5 * near**2 + self.delta * (distance - near))[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        residual = z - t
        second = np.where(np.abs(residual) <= self.delta, 1.0, self.outside)
        return np.clip(residual, -self.delta, self.delta), second

    def derivatives_jvp(self, z: Array, t: Array, dz: Array) -> tuple[Array, Array | None]:
        """Directional derivatives along dz. The gradient changes only within δ."""
        return np.where(np.abs(z - t) <= self.delta, dz, 0.0), None

    def third_derivative(self, z: Array, t: Array) -> Array:
        """0 almost everywhere."""
        return np.zeros_like(z)


class PseudoHuber(ElementwiseLoss):
    """δ² (√(1 + r²/δ²) − 1) for residuals r, as in XGBoost."""

    unit = "pseudo-Huber loss"

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__(1)
        self.delta = delta
        self.name = f"pseudo-Huber loss (δ = {delta:g})"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray((self.delta**2 * (np.sqrt(self._stretch(z, t)) - 1.0))[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        stretch = self._stretch(z, t)
        return (z - t) / np.sqrt(stretch), stretch**-1.5

    def third_derivative(self, z: Array, t: Array) -> Array:
        """−3 r/δ² (1 + r²/δ²)^(−5/2)."""
        return np.asarray(-3.0 * (z - t) / self.delta**2 * self._stretch(z, t) ** -2.5)

    def _stretch(self, z: Array, t: Array) -> Array:
        """1 + r²/δ²."""
        return np.asarray(1.0 + ((z - t) / self.delta) ** 2)


class Fair(ElementwiseLoss):
    """c² (|r|/c − log(1 + |r|/c)) for residuals r, as in LightGBM."""

    unit = "Fair loss"

    def __init__(self, c: float = 1.0) -> None:
        super().__init__(1)
        self.c = c
        self.name = f"Fair loss (c = {c:g})"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        distance = np.abs(z - t) / self.c
        return np.asarray((self.c**2 * (distance - np.log1p(distance)))[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        residual = z - t
        spread = np.abs(residual) + self.c
        return self.c * residual / spread, (self.c / spread) ** 2

    def third_derivative(self, z: Array, t: Array) -> Array:
        """−2 c² sign(r) / (|r| + c)³."""
        return np.asarray(-2.0 * self.c**2 * np.sign(z - t) / (np.abs(z - t) + self.c) ** 3)


class Expectile(ElementwiseLoss):
    """α r² for residuals r below 0, and (1 − α) r² above, as in CatBoost and XGBoost. α is the level."""

    unit = "expectile loss"

    def __init__(self, alpha: float = 0.5) -> None:
        super().__init__(1)
        self.alpha = alpha
        self.name = f"expectile loss ({alpha:g})"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray((self._share(z, t) * (z - t) ** 2)[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        share = self._share(z, t)
        return 2.0 * share * (z - t), 2.0 * share

    def third_derivative(self, z: Array, t: Array) -> Array:
        """0 almost everywhere."""
        return np.zeros_like(z)

    def _share(self, z: Array, t: Array) -> Array:
        return np.where(z < t, self.alpha, 1.0 - self.alpha)


class LogCosh(ElementwiseLoss):
    """log cosh r, as in CatBoost."""

    name = "log-cosh loss"
    unit = "log-cosh loss"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        distance = np.abs(z - t)
        return np.asarray((distance + np.log1p(np.exp(-2.0 * distance)) - np.log(2.0))[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        slope = np.tanh(z - t)
        return slope, 1.0 - slope**2

    def third_derivative(self, z: Array, t: Array) -> Array:
        """−2 tanh(r) (1 − tanh(r)²)."""
        slope = np.tanh(z - t)
        return np.asarray(-2.0 * slope * (1.0 - slope**2))


class Power(ElementwiseLoss):
    """|r|^q for q above 1: CatBoost's Lq."""

    unit = "Lq loss"

    def __init__(self, q: float) -> None:
        super().__init__(1)
        self.q = q
        self.name = f"Lq loss (q = {q:g})"

    def value(self, z: Array, t: Array) -> Array:
        """The loss."""
        return np.asarray((np.abs(z - t) ** self.q)[0])

    def derivatives(self, z: Array, t: Array) -> tuple[Array, Array]:
        """Gradient and second derivative."""
        r, q = z - t, self.q
        return q * np.sign(r) * np.abs(r) ** (q - 1), q * (q - 1) * np.abs(r) ** (q - 2)

    def third_derivative(self, z: Array, t: Array) -> Array:
        """q (q − 1)(q − 2) |r|^(q − 3) sign(r)."""
        r, q = z - t, self.q
        return np.asarray(q * (q - 1) * (q - 2) * np.abs(r) ** (q - 3) * np.sign(r))

"""The measurement of queries by a linear model: a function of their outputs, or of the coefficients alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.measurement import Measurement
from upweight.core.parameter_measurement import ParameterMeasurement
from upweight.core.rows import DenseRows
from upweight.linear.coefficients import CoefficientMap
from upweight.linear.features import Features
from upweight.linear.losses.loss import LinearLoss
from upweight.linear.rows import FactoredRows

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OutputMeasurement:
    """A function of every query's outputs Xθ and of its label.

    Attributes:
        measurement: the function.
        family: the loss.
        features: the features X of queries.
        theta: θ, (K, d).
    """

    measurement: Measurement
    family: LinearLoss
    features: Callable[[Examples], Features]
    theta: Array

    def values(self, queries: Examples) -> Array:
        """The measurement of every query, (m,)."""
        return self.measurement.value(self.family, self.features(queries).times(self.theta.T), queries.y)

    def shifted_values(self, queries: Examples, shifts: Array) -> Array:
        """The measurement at θ + shift, for every shift (g, K·d): (m, g)."""
        features, targets = self.features(queries), queries.y
        base, thetas = features.times(self.theta.T), shifts.reshape(-1, *self.theta.shape)
        outputs = (base + features.times(shift.T) for shift in thetas)
        return np.stack([self.measurement.value(self.family, z, targets) for z in outputs], axis=1)

    def gradients(self, queries: Examples) -> FactoredRows:
        """∇θ of every query's measurement."""
        features = self.features(queries)
        z = features.times(self.theta.T)
        return FactoredRows(features, self.measurement.gradient(self.family, z, queries.y))


@dataclass(frozen=True)
class CoefficientMeasurement:
    """A function of the coefficients: every query has the same number.

    Attributes:
        measurement: the function.
        map: θ → the coefficients.
        theta: θ, (K, d).
    """

    measurement: ParameterMeasurement
    map: CoefficientMap
    theta: Array

    def values(self, queries: Examples) -> Array:
        """The measurement, once per query, (m,)."""
        return np.full(len(queries), self.measurement.of_coefficients(self.map.of(self.theta)))

    def shifted_values(self, queries: Examples, shifts: Array) -> Array:
        """The measurement at θ + shift, for every shift (g, K·d): (m, g)."""
        thetas = self.theta + shifts.reshape(-1, *self.theta.shape)
        values = [self.measurement.of_coefficients(self.map.of(theta)) for theta in thetas]
        return np.tile(values, (len(queries), 1))

    def gradients(self, queries: Examples) -> DenseRows:
        """∇θ of the measurement, once per query."""
        slopes = self.measurement.slopes(self.map.of(self.theta))
        gradient = self.map.pull_back(*slopes, self.theta.shape[1])
        return DenseRows(np.tile(gradient.ravel(), (len(queries), 1)))

"""Coefficients of the estimator as a linear function of θ, and gradients back to θ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.parameter_measurement import Coefficients
from upweight.linear.design import Design
from upweight.linear.losses.loss import LinearLoss

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CoefficientMap:
    """θ (K, d) → the coefficients and intercepts of the estimator, which may have another parametrisation.

    θ of a softmax are differences to the last class, Gram coordinates combine the columns, and liblinear scales the
    intercept.

    Args:
        design: the map from inputs to features.
        family: the loss.
        names: names of the columns; None for x0, x1, ….
        name: the estimator, for messages.
    """

    design: Design
    family: LinearLoss
    names: tuple[str, ...] | None
    name: str

    def __post_init__(self) -> None:
        coordinates = self.design.coordinates
        if self.family.pairwise or (coordinates is not None and not coordinates.is_linear):
            raise TypeError(
                f"{self.name} has no coefficient of a column (a kernel, or one classifier per pair of classes); "
                "measure the loss, the margin or a function of the outputs"
            )

    def of(self, theta: Array) -> Coefficients:
        """The coefficients at θ (K, d)."""
        inner = self._inner_width(theta.shape[1])
        on_columns = (
            theta[:, :inner] if self.design.coordinates is None else self.design.coordinates.lift(theta[:, :inner])
        )
        if self.design.scale is not None:
            on_columns = on_columns * self.design.scale
        coding, has_intercept = self.family.coding(), self.design.intercept != 0
        intercepts = theta[:, -1] * self.design.intercept if has_intercept else np.zeros(len(theta))
        if self.design.offset is not None:
            intercepts = intercepts - on_columns @ self.design.offset
        values = coding @ on_columns
        names = self.names if self.names is not None and len(self.names) == values.shape[1] else None
        columns = names or tuple(f"x{j}" for j in range(values.shape[1]))
        return Coefficients(values, coding @ intercepts, columns, self._outputs(len(values)), has_intercept)

    def pull_back(self, values: Array, intercepts: Array, width: int) -> Array:
        """Gradients with respect to coefficients and intercepts as gradients with respect to θ, (K, width)."""
        coding, inner = self.family.coding(), self._inner_width(width)
        on_columns = coding.T @ values
        if self.design.offset is not None:
            on_columns = on_columns - np.outer(coding.T @ intercepts, self.design.offset)
        if self.design.scale is not None:
            on_columns = on_columns * self.design.scale
        if self.design.coordinates is not None:
            on_columns = on_columns @ self.design.coordinates.lift(np.eye(inner)).T
        if not self.design.intercept:
            return on_columns
        return np.hstack([on_columns, self.design.intercept * (coding.T @ intercepts)[:, None]])

    def _inner_width(self, width: int) -> int:
        return width - int(self.design.intercept != 0)

    def _outputs(self, rows: int) -> tuple[Any, ...]:
        classes = self.family.classes
        return tuple(classes.tolist()) if classes is not None and len(classes) == rows else tuple(range(rows))

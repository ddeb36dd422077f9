"""The map from raw inputs to the features of a linear model, fixed when the model was trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from upweight.core.input_kinds import is_sparse
from upweight.linear.features import Features
from upweight.linear.gram_coordinates import GramCoordinates, Kernel

Array = NDArray[np.float64]


class Inputs(Protocol):
    """The steps before a linear model: raw inputs → matrix (n, columns)."""

    @property
    def has_pullback(self) -> bool:
        """Whether gradients with respect to the matrix can be backpropagated to the raw inputs, by `pull_back`."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the columns; None if they have none."""

    def __call__(self, x: Any) -> Any:
        """The matrix of these inputs."""

    def raw(self, x: Any) -> Any:
        """The raw inputs as an array."""

    def pull_back(self, x: Any, gradients: Array) -> Array:
        """Gradients with respect to raw inputs, (k, n, …), from those with respect to the matrix, (k, n, columns)."""


@dataclass(frozen=True)
class Design:
    """Raw inputs → Features: the columns themselves, or their Gram coordinates.

    Attributes:
        inputs: the steps before the linear model.
        intercept: value of the intercept's column, 0 for none.
        penalised_intercept: whether the regulariser includes the intercept.
        coordinates: the Gram coordinates that follow; None for the columns themselves.
        offset: (columns,) what is subtracted from the columns, so that numbers far from 0 that hardly vary lose no
            digits; θ then has another intercept. None for nothing.
        scale: (columns,) what the columns are multiplied with, if each has a penalty of its own: on scaled
            columns the penalties are equal. None for ones.
    """

    inputs: Inputs
    intercept: float
    penalised_intercept: bool
    coordinates: GramCoordinates | None = None
    offset: Array | None = None
    scale: Array | None = None

    def __call__(self, x: Any) -> Features:
        """Features of these inputs; raises ValueError for NaN, text, or another number of columns."""
        return self.features_of(self.inputs(x))

    def features_of(self, matrix: Any) -> Features:
        """Features of inputs that went through the steps."""
        features = self._features(matrix)
        if self.coordinates is None:
            return features
        return Features(self.coordinates.transform(features.x), self.intercept, self.penalised_intercept)

    def training_features(self, matrix: Any) -> Features:
        """Features of the training matrix; its Gram coordinates are known, unless they leave out rows of weight 0."""
        if self.coordinates is None or len(self.coordinates.features) != matrix.shape[0]:
            return self.features_of(matrix)
        return Features(self.coordinates.features, self.intercept, self.penalised_intercept)

    def shifted(self, offset: Array) -> Design:
        """The same design with an offset of the columns."""
        return replace(self, offset=offset)

    def scaled(self, scale: Array) -> Design:
        """The same design with scaled columns."""
        return replace(self, scale=scale)

    def in_gram_coordinates(self, matrix: Any, kernel: Kernel | None) -> Design:
        """The same design, in Gram coordinates of this training matrix."""
        return replace(self, coordinates=GramCoordinates(self._features(matrix).x, kernel))

    def for_new_inputs(self, theta: Array, name: str) -> tuple[Design, Array]:
        """The design without Gram coordinates, and θ (K, rank + 1) as parameters on the columns (K, d).

        Raises TypeError for the model of this name if its parameters belong to its training inputs.
        """
        coordinates = self.coordinates
        if coordinates is None:
            return self, theta
        if not coordinates.is_linear:
            raise TypeError(
                f"{name} is a kernel machine, its parameters belong to its training inputs: it can take neither new "
                "nor changed inputs; use a linear model on features of your own"
            )
        on_columns = coordinates.lift(theta[:, : len(coordinates.pivots)])
        intercept = theta[:, len(coordinates.pivots) :]
        return replace(self, coordinates=None), np.hstack([on_columns, intercept])

    def columns_of(self, vectors: Array) -> Array:
        """Vectors (K, d) without the entry of the intercept."""
        return vectors[:, : vectors.shape[1] - int(self.intercept != 0)]

    def parameters(self, matrix: Any, given: Array | tuple[Any, Array]) -> Array:
        """θ in Gram coordinates, (K, rank), from θ on the columns, or from (support vectors, their coefficients)."""
        coordinates = self.coordinates
        if coordinates is None:
            raise ValueError("this design has no Gram coordinates; θ is that of the columns")
        pivots = matrix[coordinates.pivots]
        if isinstance(given, tuple):
            vectors, coefficients = given
            outputs = coordinates.kernel(pivots, vectors) @ coefficients.T
        else:
            outputs = np.asarray(pivots @ given.T)
        return coordinates.solve(outputs).T

    def _features(self, matrix: Any) -> Features:
        if self.offset is not None:
            matrix = matrix - self.offset
        if self.scale is not None:
            matrix = matrix.multiply(self.scale) if is_sparse(matrix) else matrix * self.scale
        return Features(matrix, self.intercept, self.penalised_intercept)

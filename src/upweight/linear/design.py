"""Design: from raw inputs to the features of a linear model, fixed when the model was trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.linear.features import Features
from upweight.linear.gram import GramCoordinates, Kernel

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """Raw inputs → Features: the columns themselves, or Gram coordinates.

    Attributes:
        inputs: raw inputs → matrix (n, columns), everything before the linear model.
        intercept: value of the intercept's column, 0 for none.
        penalised_intercept: whether the regulariser sees it.
        coordinates: the map that follows, if any.
    """

    inputs: Callable[[Any], Any]
    intercept: float
    penalised_intercept: bool
    coordinates: GramCoordinates | None = None

    def __call__(self, x: Any) -> Features:
        """Features of these inputs; raises ValueError for NaN, text, or another number of columns."""
        features = self._features(self.inputs(x))
        return features if self.coordinates is None else self._features(self.coordinates.transform(features.x))

    def in_gram_coordinates(self, matrix: Any, kernel: Kernel | None) -> Design:
        """The same design in the coordinates of a training matrix's Gram matrix."""
        return replace(self, coordinates=GramCoordinates(self._features(matrix).x, kernel))

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
        return Features(matrix, self.intercept, self.penalised_intercept)

"""Measurements of the trained parameters alone: a coefficient, or any function of them all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.measurement import Measurement, TrainingLoss

Array = NDArray[np.float64]
STEP = 1e-5  # of central differences, relative to the coefficient
SMALLEST_STEP_OF = 1e-3  # a coefficient smaller than this share of the largest one gets the step of this share


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of a linear model in the estimator's own form, with their names.

    Attributes:
        values: (outputs, columns): one row for regression and for two classes, else one per class or target.
        intercepts: (outputs,); zeros if the model has none.
        columns: names of the columns that enter the linear model.
        outputs: the class or target of each row.
        has_intercept: whether the model has intercepts.
        p_values: of the test of every coefficient against 0, in the shape of `values`; None if the model has no tests.
    """

    values: Array
    intercepts: Array
    columns: tuple[str, ...]
    outputs: tuple[Any, ...]
    has_intercept: bool
    p_values: Array | None = None

    @property
    def names(self) -> list[tuple[Any, str]]:
        """(output, column) of every coefficient, row by row; the intercept is the last of each row."""
        columns = [*self.columns, "intercept"] if self.has_intercept else list(self.columns)
        return [(output, column) for output in self.outputs for column in columns]

    def find(self, of: Any) -> tuple[int, int]:
        """(row, column) of a coefficient named `column` or `(output, column)`; −1 is the intercept's column.

        Raises ValueError if there is no such coefficient.
        """
        output, column = of if isinstance(of, tuple) and len(of) == 2 else (None, of)
        if output is None and len(self.outputs) > 1:
            raise ValueError(f"expected (class, column) with a class among {list(self.outputs)[:12]}, got {of!r}")
        if output is not None and output not in self.outputs:
            raise ValueError(f"expected a class among {list(self.outputs)[:12]}, got {output!r}")
        row = 0 if output is None else self.outputs.index(output)
        if column == "intercept" and self.has_intercept and column not in self.columns:
            return row, -1
        if isinstance(column, int | np.integer) and 0 <= column < len(self.columns):
            return row, int(column)
        if column not in self.columns:
            known = [*self.columns, "intercept"] if self.has_intercept else list(self.columns)
            raise ValueError(f"expected a column among {known[:12]}, or its position, got {column!r}")
        return row, self.columns.index(column)


class ParameterMeasurement(Measurement):
    """A measurement that depends on the coefficients alone, so that every query gets the same number."""

    needs_label = False

    @abstractmethod
    def of_coefficients(self, coefficients: Coefficients) -> float:
        """The measurement."""

    @abstractmethod
    def slopes(self, coefficients: Coefficients) -> tuple[Array, Array]:
        """The derivatives of the measurement with respect to `values` and `intercepts`, in their shapes."""

    def value(self, family: TrainingLoss, z: Array, y: NDArray[Any] | None) -> Array:
        """Raises TypeError: the outputs of a model do not determine its coefficients."""
        raise TypeError(
            f"{self.described(family)} needs a linear model with coefficients; measure the loss, the margin or a "
            "function of the outputs of this one"
        )


@dataclass(frozen=True)
class Coefficient(ParameterMeasurement):
    """One coefficient of a linear model, as the estimator has it in `coef_` and `intercept_`.

    Args:
        of: name or position of a column that enters the linear model, or "intercept". With several outputs,
            (class or target, column).
    """

    of: Any

    def described(self, family: TrainingLoss) -> str:
        """The coefficient's name."""
        return f"coefficient of {': '.join(map(str, self.of)) if isinstance(self.of, tuple) else self.of}"

    def of_coefficients(self, coefficients: Coefficients) -> float:
        """The coefficient."""
        row, column = coefficients.find(self.of)
        return float(coefficients.intercepts[row] if column < 0 else coefficients.values[row, column])

    def slopes(self, coefficients: Coefficients) -> tuple[Array, Array]:
        """1 for the coefficient itself."""
        row, column = coefficients.find(self.of)
        values, intercepts = np.zeros_like(coefficients.values), np.zeros_like(coefficients.intercepts)
        if column < 0:
            intercepts[row] = 1.0
        else:
            values[row, column] = 1.0
        return values, intercepts


@dataclass(frozen=True)
class PValue(ParameterMeasurement):
    """The p-value of one coefficient, of results of statsmodels, which are fitted again without examples.

    Args:
        of: name or position of a column of the design matrix.
    """

    of: Any

    def described(self, family: TrainingLoss) -> str:
        """The name of the coefficient."""
        return f"p-value of {self.of}"

    def of_coefficients(self, coefficients: Coefficients) -> float:
        """The p-value. Raises TypeError if the model has no tests."""
        row, column = coefficients.find(self.of)
        if coefficients.p_values is None:
            raise TypeError(
                "a p-value needs results of statsmodels, as model.fit() returns them; pass these to explainable, or "
                "measure Coefficient(…) of this model"
            )
        return float(coefficients.p_values[row, column])

    def slopes(self, coefficients: Coefficients) -> tuple[Array, Array]:
        """Raises TypeError: a p-value depends on the data too, so that refits are needed."""
        raise TypeError("a p-value has no derivative in the coefficients alone; use uw.ShortlistLeaveOneOut()")


@dataclass(frozen=True)
class ParameterFunction(ParameterMeasurement):
    """A function of the coefficients of a linear model, e.g. the dose at which half of the animals survive.

    Args:
        function: `f(coef, intercept) -> number` for coef (outputs, columns) and intercept (outputs,).
        derivative: `g(coef, intercept) -> (∂f/∂coef, ∂f/∂intercept)` in these shapes; None for central differences.
    """

    function: Callable[[Array, Array], Any]
    derivative: Callable[[Array, Array], tuple[Any, Any]] | None = None

    def described(self, family: TrainingLoss) -> str:
        """The name of the function."""
        return getattr(self.function, "__name__", "function").replace("<lambda>", "function of the coefficients")

    def of_coefficients(self, coefficients: Coefficients) -> float:
        """The value of the function. Raises ValueError if it is not one finite number."""
        return self._value(coefficients.values, coefficients.intercepts)

    def slopes(self, coefficients: Coefficients) -> tuple[Array, Array]:
        """The derivatives that the caller passed, or central differences. Raises ValueError for other shapes."""
        parts = coefficients.values, coefficients.intercepts
        if self.derivative is None:
            return self._differences(*parts)
        given = tuple(np.asarray(part, dtype=np.float64) for part in self.derivative(*(part.copy() for part in parts)))
        if [part.shape for part in given] != [part.shape for part in parts]:
            raise ValueError(
                f"expected derivatives of the shapes {[part.shape for part in parts]}, got {[p.shape for p in given]}"
            )
        return given[0], given[1]

    def _value(self, values: Array, intercepts: Array) -> float:
        result = np.asarray(self.function(values.copy(), intercepts.copy()), dtype=np.float64)
        if result.size != 1 or not np.isfinite(result).all():
            raise ValueError(f"expected the function of the coefficients to give one finite number, got {result!r}")
        return float(result.ravel()[0])

    def _differences(self, values: Array, intercepts: Array) -> tuple[Array, Array]:
        flat = np.concatenate([values.ravel(), intercepts])
        largest = float(np.abs(flat).max()) or 1.0
        slopes = np.empty_like(flat)
        for j, at in enumerate(flat):
            step = STEP * max(abs(at), SMALLEST_STEP_OF * largest)
            ends = []
            for moved in (at + step, at - step):
                shifted = flat.copy()
                shifted[j] = moved
                ends.append(self._value(shifted[: values.size].reshape(values.shape), shifted[values.size :]))
            slopes[j] = (ends[0] - ends[1]) / ((at + step) - (at - step))
        return slopes[: values.size].reshape(values.shape), slopes[values.size :]

"""The test of a coefficient against zero, on all examples and without each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from upweight.core.examples import Examples
from upweight.core.rows import DenseRows
from upweight.linear.curvature import LinearCurvature
from upweight.linear.deletion_diagnostics import residuals_without
from upweight.linear.model import LinearModel

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CoefficientTest:
    """Wald's test of one coefficient of a regression without a penalty.

    Attributes:
        statistic: the coefficient divided by its standard error: t of least squares, else z.
        freedom: n − p of the t distribution; infinite for the normal distribution.
    """

    statistic: float
    freedom: float

    @property
    def p_value(self) -> float:
        """Two-sided."""
        tail = norm.sf(abs(self.statistic)) if np.isinf(self.freedom) else t.sf(abs(self.statistic), self.freedom)
        return float(2 * tail)

    def critical(self, level: float) -> float:
        """|statistic| from which the coefficient is significant at this level, e.g. 1.96 for .05."""
        return critical_value(self.freedom, level)


def critical_value(freedom: float, level: float) -> float:
    """The quantile of |t| with these degrees of freedom, or of the normal distribution if they are infinite."""
    return float(norm.isf(level / 2) if np.isinf(freedom) else t.isf(level / 2, freedom))


def coefficient_test(model: LinearModel, train: Examples, gradient: Array) -> CoefficientTest:
    """The test of gradientᵀθ at the model's parameters, with standard errors √(φ gᵀH⁻¹g) of the Fisher information.

    Args:
        model: at its optimum on `train`.
        train: the examples.
        gradient: (parameters,) of the coefficient in θ.

    Raises:
        TypeError: the model has several outputs, or no likelihood.
        ValueError: the model has a penalty, with which there is no test; there are as many parameters as examples.
    """
    curvature = _information(model, train)
    dispersion, freedom = _dispersion(model, train, float(curvature.leverage().sum()))
    rows = DenseRows(gradient[None])
    variance = float(curvature.solve(rows).rows.dense()[0] @ gradient)
    return CoefficientTest(float(model.parameters @ gradient) / np.sqrt(dispersion * variance), freedom)


def statistics_without_each(model: LinearModel, train: Examples, gradient: Array) -> Array:
    """The statistic without each training example by one Newton step, (n,): exact for least squares.

    Leaving example i out changes the inverse information by a matrix of rank one (Sherman & Morrison). An example of
    leverage 1, without which the coefficient may have no estimate, has NaN.
    """
    curvature = _information(model, train)
    corrected = curvature.corrected(model.loss_rows(train))
    leverage, problem = curvature.leverage(), curvature.problem
    shifts = curvature.solve(corrected).rows.dense()
    solved = curvature.solve(DenseRows(gradient[None])).rows.dense()[0]
    second_derivatives = problem.weights * problem.family.expected().at(problem.outputs, problem.targets).diagonal[:, 0]
    spread = residuals_without(model, train, curvature, shifts, leverage).dispersion_without
    with np.errstate(divide="ignore", invalid="ignore"):
        variances = solved @ gradient + second_derivatives * (problem.features.dense() @ solved) ** 2 / (1.0 - leverage)
        statistics = (model.parameters @ gradient + shifts @ gradient) / np.sqrt(spread * variances)
    statistics[list(curvature.undetermined())] = np.nan
    return np.asarray(statistics)


def _information(model: LinearModel, train: Examples) -> LinearCurvature:
    if model.family.outputs != 1 or not model.family.is_likelihood:
        raise TypeError(f"expected a regression with one output and a likelihood, got {model.name}")
    if model.objective.l2 > 0:
        raise ValueError(
            f"expected a {model.name} without a penalty, with which a coefficient has no test of significance; use "
            "LinearRegression() or penalty=None"
        )
    curvature = model.curvature(train, None, 0.0).expected()
    if not isinstance(curvature, LinearCurvature):
        raise TypeError(f"expected the curvature of a linear model, got {type(curvature).__name__}")
    return curvature


def _dispersion(model: LinearModel, train: Examples, effective: float) -> tuple[float, float]:
    if model.fixed_dispersion is not None:
        return model.fixed_dispersion, np.inf
    counts = model.problem(train).counts
    freedom = float(len(train) if counts is None else counts.sum()) - round(effective)
    if freedom < 1:
        raise ValueError(f"expected more examples than parameters, got {len(train)} and {effective:.0f}")
    return model.dispersion(train, effective), freedom

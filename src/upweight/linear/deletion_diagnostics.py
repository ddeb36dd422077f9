"""Deletion diagnostics of a regression in one table: residuals, DFFITS, DFBETAS, leverage and Cook's distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.rows import DenseRows
from upweight.linear.curvature import LinearCurvature
from upweight.linear.losses.tweedie import TweedieLoss
from upweight.linear.model import LinearModel

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Residuals:
    """Pearson residuals of a model with one output, and the dispersions they are studentised by.

    Attributes:
        pearson: √wᵢ (yᵢ − μᵢ)/√V(μᵢ), (n,); NaN for rows of weight 0.
        leave_one_out: yᵢ minus its mean as predicted without it, (n,).
        dispersion_without: φ estimated without each example, (n,).
    """

    pearson: Array
    leave_one_out: Array
    dispersion_without: Array


def deletion_diagnostics(model: LinearModel, train: Examples, curvature: LinearCurvature) -> dict[str, Array]:
    """Column name → values (n,), with the column names of statsmodels' `summary_frame`.

    All are one Newton step without the example, from the information that the curvature takes. Raises TypeError if the
    loss is not a likelihood (a hinge). Examples of leverage 1 are NaN but for `hat_diag`.

    Source: Belsley, Kuh & Welsch (1980); Pregibon (1981); Williams (1987) for generalised linear models.
    """
    if not model.family.is_likelihood:
        raise TypeError(
            f"studentised residuals need a likelihood, which {model.family.name} is not; cooks_distance(), dfbeta() "
            "and leverage() also answer for it"
        )
    corrected = curvature.corrected(model.loss_rows(train))
    leverage = curvature.leverage()
    effective = float(leverage.sum())
    dispersion = model.dispersion(train, effective)
    shifts = curvature.solve(corrected).rows.dense()
    table = {"cooks_d": curvature.paired(corrected, corrected) / (effective * dispersion), "hat_diag": leverage}
    spread = np.full(len(train), dispersion)
    if model.family.outputs == 1:
        residuals = residuals_without(model, train, curvature, shifts, leverage)
        without = residuals.dispersion_without
        spread = without if _is_least_squares(model) else spread  # as OLSInfluence and GLMInfluence of statsmodels
        with np.errstate(divide="ignore", invalid="ignore"):
            remainder, odds = np.sqrt(1.0 - leverage), np.sqrt(leverage / (1.0 - leverage))
            table["standard_resid"] = residuals.pearson / np.sqrt(dispersion) / remainder
            table["student_resid"] = residuals.pearson / np.sqrt(without) / remainder
        for name, residual in (("dffits_internal", "standard_resid"), ("dffits", "student_resid")):
            table[name] = np.where(leverage == 0, 0.0, table[residual] * odds)
        table["resid_press"] = residuals.leave_one_out
    table = {**_scaled_dfbetas(model, curvature, shifts, spread), **table}
    for name, values in table.items():
        if name != "hat_diag":
            values[list(curvature.undetermined())] = np.nan
    return table


def _is_least_squares(model: LinearModel) -> bool:
    """Whether the noise is normal and the link the identity."""
    family = model.family
    return family.is_quadratic or (isinstance(family, TweedieLoss) and family.power == 0 and not family.log_link)


def residuals_without(
    model: LinearModel, train: Examples, curvature: LinearCurvature, shifts: Array, leverage: Array
) -> Residuals:
    """Residuals of a model with one output, with the dispersion and the prediction without each example.

    `shifts` (n, d) are those of the parameters without each example, `leverage` (n,).
    """
    problem = curvature.problem
    expected = problem.family.expected().at(problem.outputs, problem.targets)
    weights, fixed = problem.weights, model.fixed_dispersion
    counts = np.ones(len(train)) if problem.counts is None else problem.counts
    pearson = -np.sqrt(weights) * expected.gradient[:, 0] / np.sqrt(expected.diagonal[:, 0])
    change = np.einsum("nd,nd->n", problem.features.dense(), shifts)
    spread = np.full(len(train), 1.0 if fixed is None else fixed)
    if fixed is None:
        with np.errstate(divide="ignore", invalid="ignore"):
            if problem.ridge or curvature.solver.damping:
                left_out_squares = (pearson - np.sqrt(weights * expected.diagonal[:, 0]) * change) ** 2
                squares = _moved_squares(curvature, pearson, shifts) - left_out_squares
            else:
                squares = pearson @ pearson - pearson**2 / (1.0 - leverage)
            freedom = float(counts.sum()) - float(leverage.sum()) - counts
            spread = np.where((freedom > 0) & (squares >= 0), squares / freedom, np.nan)
    leave_one_out = problem.family.residuals(problem.outputs + change[:, None], problem.targets)[:, 0]
    return Residuals(np.where(weights > 0, pearson, np.nan), leave_one_out, spread)


def _moved_squares(curvature: LinearCurvature, pearson: Array, shifts: Array) -> Array:
    """Sum of the squared Pearson residuals of all examples at each shift (n, d), to second order: (n,)."""
    problem = curvature.problem
    derivatives = problem.family.expected().at(problem.outputs, problem.targets)
    lower = problem.features.weighted_gram(problem.weights * derivatives.diagonal[:, 0])
    gram = np.tril(lower) + np.tril(lower, -1).T
    gradient = problem.features.transposed_times(problem.weights[:, None] * derivatives.gradient)[:, 0]
    return np.asarray(pearson @ pearson + 2.0 * shifts @ gradient + ((shifts @ gram) * shifts).sum(axis=1))


def _scaled_dfbetas(model: LinearModel, curvature: LinearCurvature, shifts: Array, spread: Array) -> dict[str, Array]:
    """(θ̂ − θ̂₋ᵢ)ⱼ in the estimator's coefficients, divided by their standard errors √(φ (H⁻¹)ⱼⱼ); `spread` is φ."""
    coefficients, at = model.coefficients(), model.coefficient_map()
    outputs, columns = coefficients.values.shape
    width = columns + int(coefficients.has_intercept)
    rows = []
    for position in range(outputs * width):
        unit = np.zeros((outputs, columns + 1))
        unit[divmod(position, width)] = 1.0
        rows.append(at.pull_back(unit[:, :columns], unit[:, columns], model.theta.shape[1]).ravel())
    basis = np.stack(rows)
    variances = (basis * curvature.solve(DenseRows(basis)).rows.dense()).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = -(shifts @ basis.T) / np.sqrt(variances) / np.sqrt(spread)[:, None]
    names = [column if outputs == 1 else f"{output}: {column}" for output, column in coefficients.names]
    return {f"dfb_{name}": scaled[:, j] for j, name in enumerate(names)}

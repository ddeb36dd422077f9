"""Kernel ridge regression of scikit-learn: ridge regression without an intercept, in the coordinates of its kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from upweight.core.examples import Examples
from upweight.core.model_reader import UnsupportedSettingsError
from upweight.core.objective import Objective
from upweight.linear.losses.squared import SquaredLoss
from upweight.models.sklearn.kernels import NamedKernel, as_dense, named_kernel
from upweight.models.sklearn.linear_spec import LinearSpec


def kernel_ridge(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """KernelRidge with a named kernel."""
    if np.ndim(estimator.alpha) != 0:
        raise UnsupportedSettingsError(
            f"expected one alpha for all targets, got {np.size(estimator.alpha)}; fit one KernelRidge per target"
        )
    kernel = named_kernel(estimator, estimator.gamma)
    kernel = NamedKernel(kernel.name, {**kernel.settings, **(estimator.kernel_params or {})})
    require_rows("KernelRidge", estimator.X_fit_, matrix)
    dual = np.asarray(estimator.dual_coef_, dtype=np.float64)
    dual = dual.reshape(len(dual), -1).T
    return LinearSpec(
        SquaredLoss(len(dual)),
        Objective("sum", float(estimator.alpha)),
        np.zeros((len(dual), 0)),
        None,
        kernel=kernel,
        support=(estimator.X_fit_, dual),
    )


def require_rows(name: str, fitted: Any, matrix: Any) -> None:
    """Raise ValueError if these are not the rows that an estimator keeps from its fit."""
    if fitted.shape != matrix.shape or not np.allclose(as_dense(fitted), as_dense(matrix)):
        raise ValueError(
            f"expected the data that {name} was fitted on, got rows that differ from those it keeps "
            f"({matrix.shape[0]} rows, {fitted.shape[0]} kept); pass the same rows in the same order as to fit()"
        )

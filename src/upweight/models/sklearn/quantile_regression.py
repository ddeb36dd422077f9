"""Quantile regression of scikit-learn: its training objective, and how it is retrained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import QuantileRegressor

from upweight.core.examples import Examples
from upweight.core.model_reader import UnsupportedSettingsError
from upweight.core.objective import Objective
from upweight.linear.features import Features
from upweight.linear.losses.pinball import SmoothPinballLoss
from upweight.linear.quantile_curvature import vertex_path
from upweight.linear.training_problem import Weighting, training_problem
from upweight.linear.vertex_path import VertexError
from upweight.models.sklearn.linear_spec import Array, LinearSpec, linear_spec_of
from upweight.models.sklearn.support_vector_regression import target_spread

MAX_COLUMNS = 500  # columns: their inverse matrix is updated at every vertex


def quantile(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """QuantileRegressor: the mean of the smoothed pinball loss, with an l1."""
    if matrix.shape[1] > MAX_COLUMNS:
        raise UnsupportedSettingsError(
            f"expected QuantileRegressor with at most {MAX_COLUMNS} columns, got {matrix.shape[1]}, whose optima take "
            "long to follow"
        )
    family = SmoothPinballLoss(float(estimator.quantile), smoothing * target_spread(train))
    objective = Objective("mean", 0.0, float(estimator.alpha))
    spec = linear_spec_of(estimator, objective, family, refit=QuantileRefit(family.quantile, float(estimator.alpha)))
    _require_one_optimum(spec, matrix, train)
    return spec


def _require_one_optimum(spec: LinearSpec, matrix: Any, train: Examples) -> None:
    """Raise UnsupportedSettingsError if the columns depend on each other, so that the optimum is not one place."""
    features = Features(matrix, 0.0 if spec.intercepts is None else 1.0)
    theta = spec.coefficients if spec.intercepts is None else np.c_[spec.coefficients, spec.intercepts]
    try:
        vertex_path(training_problem(train, features, spec.family, theta, Weighting(spec.objective, None, False)))
    except VertexError as error:
        raise UnsupportedSettingsError(f"this QuantileRegressor has no single optimum: {error}") from error


@dataclass(frozen=True)
class QuantileRefit:
    """Retrains the regression on the same features by linear programming."""

    quantile: float
    alpha: float

    def __call__(self, features: Features, targets: NDArray[Any], weights: Array) -> Array:
        """θ (1, d) of the regression trained with these example weights."""
        used = weights > 0
        regression = QuantileRegressor(
            quantile=self.quantile, alpha=self.alpha, fit_intercept=bool(features.intercept), solver="highs"
        ).fit(features.x[used], targets[used, 0], sample_weight=weights[used])
        theta = np.zeros((1, features.width))
        theta[0, : features.columns] = regression.coef_
        if features.intercept:
            theta[0, -1] = regression.intercept_ / features.intercept
        return theta

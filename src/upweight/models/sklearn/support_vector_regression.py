"""Support vector regression of scikit-learn: its training objectives, and how it is retrained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.svm import SVR

from upweight.core.examples import Examples
from upweight.core.objective import Objective
from upweight.core.weights import sample_weights, weighted_positions
from upweight.linear.features import Features
from upweight.linear.losses.epsilon_insensitive import SmoothEpsilonLoss, SquaredEpsilonLoss
from upweight.models.sklearn.kernels import as_dense, fixed_width_note, named_kernel
from upweight.models.sklearn.linear_spec import Array, LinearSpec, linear_spec_of

TUBE_TOLERANCE = 0.05  # how far examples inside the tube may lie outside it, in standard deviations of the target


def linear_svr(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """LinearSVR: the squared or the smoothed ε-insensitive loss."""
    is_smooth, epsilon = estimator.loss == "squared_epsilon_insensitive", float(estimator.epsilon)
    temperature = smoothing * target_spread(train)
    family = SquaredEpsilonLoss(epsilon) if is_smooth else SmoothEpsilonLoss(epsilon, temperature)
    scale = float(estimator.intercept_scaling) if estimator.fit_intercept else 1.0
    return linear_spec_of(
        estimator,
        Objective("sum", 1.0 / estimator.C),
        family,
        intercept_value=scale,
        penalised_intercept=True,
        refit=None if is_smooth else TubeRefit(estimator, is_kernel=False),
    )


def svr(estimator: Any, matrix: Any, train: Examples, smoothing: float) -> LinearSpec:
    """SVR: the smoothed ε-insensitive loss in the coordinates of its kernel."""
    kernel, temperature = named_kernel(estimator, estimator._gamma), smoothing * target_spread(train)
    require_support(estimator, matrix, train, float(estimator.epsilon))
    return LinearSpec(
        SmoothEpsilonLoss(float(estimator.epsilon), temperature),
        Objective("sum", 1.0 / estimator.C),
        np.zeros((1, 0)),
        np.asarray(estimator.intercept_, dtype=np.float64),
        kernel=kernel,
        support=(estimator.support_vectors_, as_dense(estimator.dual_coef_)),
        refit=TubeRefit(estimator, is_kernel=True),
        notes=fixed_width_note(estimator),
    )


def target_spread(train: Examples) -> float:
    """The standard deviation of the targets, which the temperature is a share of."""
    assert train.y is not None
    targets, weights = np.asarray(train.y, dtype=np.float64).ravel(), sample_weights(train)
    mean = np.average(targets, weights=weights)
    return float(np.sqrt(np.average((targets - mean) ** 2, weights=weights))) or 1.0


def require_support(estimator: Any, matrix: Any, train: Examples, epsilon: float) -> None:
    """Raise ValueError for rows or targets that are not those of the fit.

    Support vectors have to match exactly, and all other rows have to lie inside the tube.
    """
    assert train.y is not None
    weighted = weighted_positions(train)  # libsvm numbers only the rows of positive weight
    matrix, rows, y = matrix[weighted], estimator.support_, np.asarray(train.y, dtype=np.float64)[weighted]
    matches = max(rows, default=-1) < matrix.shape[0] and np.allclose(
        as_dense(matrix[rows]), as_dense(estimator.support_vectors_)
    )
    others = np.setdiff1d(np.arange(matrix.shape[0]), rows)
    if matches and len(others):
        outside = np.abs(y[others] - estimator.predict(matrix[others])) - epsilon
        matches = bool((outside <= TUBE_TOLERANCE * target_spread(train)).all())
    if not matches:
        raise ValueError(
            f"expected the data that {type(estimator).__name__} was fitted on, got rows and targets that do not fit "
            "its support vectors; pass the same rows in the same order, with the same targets, as to fit()"
        )


@dataclass(frozen=True)
class TubeRefit:
    """Retrains the estimator itself on the same features, to a tight tolerance."""

    estimator: Any
    is_kernel: bool

    def __call__(self, features: Features, targets: NDArray[Any], weights: Array) -> Array:
        """θ (1, d) of the regression trained with these example weights."""
        used = weights > 0
        if self.is_kernel:
            regression = SVR(kernel="linear", C=self.estimator.C, epsilon=self.estimator.epsilon, tol=1e-8)
        else:
            regression = clone(self.estimator).set_params(tol=1e-8, max_iter=2_000_000, random_state=0)
        regression.fit(features.x[used], targets[used, 0], sample_weight=weights[used])
        theta = np.zeros((1, features.width))
        theta[0, : features.columns] = as_dense(regression.coef_).ravel()
        if features.intercept:
            theta[0, -1] = np.ravel(regression.intercept_)[0] / features.intercept
        return theta

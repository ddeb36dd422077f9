"""GaussianProcessRegressor of scikit-learn: the posterior mean at the kernel that the fit found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from upweight.core.matrix_products import expect_products
from upweight.linear.losses.squared import SquaredLoss
from upweight.models.fitted_estimators import not_fitted
from upweight.models.sklearn.closed_form_spec import FormSpec
from upweight.models.sklearn.outputs_by_weights import Array, ClosedForm


def gaussian_process(estimator: Any) -> FormSpec:
    """GaussianProcessRegressor: measured by its posterior mean."""
    if not hasattr(estimator, "X_train_"):
        raise not_fitted(type(estimator).__name__)
    noise = np.asarray(estimator.alpha, dtype=np.float64)
    form = partial(GaussianProcessForm, kernel=estimator.kernel_, alpha=noise, is_centred=bool(estimator.normalize_y))
    outputs = 1 if np.ndim(estimator.y_train_) == 1 else np.shape(estimator.y_train_)[1]
    note = (
        f"The kernel {estimator.kernel_} was chosen by its likelihood and is held fixed: removals do not change it.",
    )
    return FormSpec(
        SquaredLoss(outputs),
        form,
        takes_weights=False,
        fixed_settings={"kernel": estimator.kernel_, "optimizer": None},
        notes=note if estimator.optimizer is not None and estimator.kernel_.n_dims else (),
    )


class _Posterior(NamedTuple):
    """Rows of positive weight, and of them A⁻¹(y − mean) (rows, outputs); the mean that was subtracted (outputs,)."""

    rows: NDArray[np.intp]
    coefficients: Array
    mean: Array


@dataclass(frozen=True, eq=False)
class GaussianProcessForm(ClosedForm):
    """mean + k(x, X) A⁻¹ (y − mean) with A = K + noise; k copies of a row are one row with a k-th of the noise.

    Attributes:
        kernel: the kernel, at its hyperparameters.
        alpha: the noise variance that is added to that of the kernel, for all rows or (n,).
        is_centred: whether the mean of the targets is subtracted.
    """

    kernel: Any
    alpha: Array
    is_centred: bool

    def fitted(self, factors: Array) -> _Posterior:
        """The coefficients of the kernel's columns."""
        weights = factors * self.weights
        rows = np.flatnonzero(weights)
        mean = self._mean(weights[rows], rows)
        a = self._gram[np.ix_(rows, rows)] + np.diag(self._noise[rows] / weights[rows])
        return _Posterior(rows, np.asarray(cho_solve(cho_factor(a, lower=True), self._values[rows] - mean)), mean)

    def outputs(self, fitted: _Posterior, x: Any) -> Array:
        """The posterior mean, (m, outputs)."""
        return np.asarray(fitted.mean + self.kernel(x, self.x[fitted.rows]) @ fitted.coefficients)

    def outputs_without(self, positions: NDArray[np.intp], x: Any) -> Array:
        """The outputs without each example, by the inverse of A with one row and column fewer: P − PᵢPᵢᵀ/Pᵢᵢ."""
        rows, place = self._present, np.full(len(self.weights), -1)
        place[rows] = np.arange(len(rows))
        removed = place[positions]
        inverse, columns, ones = self._inverse, self.kernel(x, self.x[rows]), np.ones((len(rows), 1))
        targets = np.hstack([self._values[rows], ones])
        solved = inverse @ targets
        projected = (columns @ inverse[:, removed]) / np.diagonal(inverse)[removed]
        without = (columns @ solved)[:, None] - projected[:, :, None] * solved[removed]
        weights = np.repeat(self.weights[None, rows], len(positions), axis=0)
        weights[np.arange(len(positions)), removed] = 0.0
        means = np.stack([self._mean(w, rows) for w in weights])
        return np.asarray(without[..., :-1] + means * (1.0 - without[..., -1:]))

    def refusals(self) -> dict[int, str]:
        """The only example."""
        return {} if len(self._present) > 1 else {int(i): "no example would be left" for i in self._present}

    @cached_property
    def _values(self) -> Array:
        return np.asarray(self.targets, dtype=np.float64).reshape(len(self.targets), -1)

    @cached_property
    def _present(self) -> NDArray[np.intp]:
        return np.flatnonzero(self.weights)

    @cached_property
    def _gram(self) -> Array:
        return np.asarray(self.kernel(self.x, self.x))

    @cached_property
    def _noise(self) -> Array:
        """The noise variance of every row: that of a white kernel, which only equal rows share, and `alpha`."""
        white = np.diagonal(self.kernel(self.x)) - np.diagonal(self._gram)
        return np.asarray(np.maximum(white, 0.0) + self.alpha)

    @cached_property
    def _inverse(self) -> Array:
        """A⁻¹ over the rows of positive weight."""
        rows = self._present
        expect_products(7 * len(rows) ** 3 / 3, 24.0 * len(rows) ** 2)
        a = self._gram[np.ix_(rows, rows)] + np.diag(self._noise[rows] / self.weights[rows])
        return np.asarray(cho_solve(cho_factor(a, lower=True), np.eye(len(rows))))

    def _mean(self, weights: Array, rows: NDArray[np.intp]) -> Array:
        """The mean of the targets of these rows, (outputs,); 0 if it is not subtracted."""
        if not self.is_centred:
            return np.zeros(self._values.shape[1])
        return np.asarray(weights @ self._values[rows] / weights.sum())

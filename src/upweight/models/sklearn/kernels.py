"""Named kernels of scikit-learn's kernel machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import pairwise_kernels

from upweight.core.model_reader import UnsupportedSettingsError
from upweight.linear.features import Features

Array = NDArray[np.float64]
INDEFINITE = ("sigmoid", "additive_chi2")  # kernels that are not inner products
EXACT_DISTANCES = 1e-10  # error of γ·distance² above which distances are computed from differences


@dataclass(frozen=True)
class NamedKernel:
    """A named kernel with its settings."""

    name: str
    settings: dict[str, Any]

    def __call__(self, a: Any, b: Any) -> Array:
        """The matrix of kernel values (n, m) for inputs (n, columns) and (m, columns)."""
        if self.name == "rbf" and self._gamma(a) * _distance_error(a, b) > EXACT_DISTANCES:
            return np.asarray(np.exp(-self._gamma(a) * cdist(as_dense(a), as_dense(b), "sqeuclidean")))
        return np.asarray(pairwise_kernels(a, b, metric=self.name, filter_params=True, **self.settings))

    def _gamma(self, a: Any) -> float:
        gamma = self.settings.get("gamma")
        return 1.0 / a.shape[1] if gamma is None else float(gamma)


def _distance_error(a: Any, b: Any) -> float:
    """The rounding error of ‖x‖² + ‖y‖² − 2xy, which equal inputs of large columns do not bring to 0."""
    squares = (Features(each, 0.0).squares() for each in (a, b))
    return float(np.finfo(np.float64).eps) * max(float(each.max(initial=0.0)) for each in squares)


def named_kernel(estimator: Any, gamma: Any) -> NamedKernel:
    """The kernel of a machine with `kernel`, `degree` and `coef0`.

    Raises:
        UnsupportedSettingsError: a kernel without a name, or one that is not an inner product, or no support vectors.
    """
    if callable(estimator.kernel) or estimator.kernel == "precomputed":
        raise UnsupportedSettingsError(
            f"expected {type(estimator).__name__} with a named kernel, got {estimator.kernel!r}: a precomputed or "
            "callable kernel cannot be evaluated on queries here; use rbf, poly or linear"
        )
    if estimator.kernel in INDEFINITE:
        raise UnsupportedSettingsError(
            f"the {estimator.kernel} kernel is not an inner product and has no coordinates; use rbf, poly or linear"
        )
    if hasattr(estimator, "support_") and not len(estimator.support_):
        raise UnsupportedSettingsError(
            f"{type(estimator).__name__} has no support vectors: it predicts one number, as all targets lie in its tube"
        )
    settings = {"gamma": gamma, "degree": estimator.degree, "coef0": estimator.coef0}
    return NamedKernel(estimator.kernel, settings)


def fixed_width_note(estimator: Any) -> tuple[str, ...]:
    """A note if the kernel width was taken from the data, and is held fixed; empty for a width that was set."""
    if estimator.gamma != "scale" or estimator.kernel == "linear":
        return ()
    return (
        f"gamma='scale': the kernel keeps the width of the full training set ({estimator._gamma:.4g}). Removals do not "
        "change it, and retraining does not either.",
    )


def as_dense(x: Any) -> Array:
    """Dense or sparse rows as a float array."""
    return np.asarray(x.toarray() if hasattr(x, "toarray") else x, dtype=np.float64)

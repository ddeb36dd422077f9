"""Named kernels of scikit-learn's kernel machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import pairwise_kernels

from upweight.core.model_reader import UnsupportedSettingsError

Array = NDArray[np.float64]
INDEFINITE = ("sigmoid", "additive_chi2")  # which are not inner products


@dataclass(frozen=True)
class NamedKernel:
    """A named kernel with its settings."""

    name: str
    settings: dict[str, Any]

    def __call__(self, a: Any, b: Any) -> Array:
        """The matrix of kernel values (n, m) for inputs (n, columns) and (m, columns)."""
        return np.asarray(pairwise_kernels(a, b, metric=self.name, filter_params=True, **self.settings))


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


def held_width_note(estimator: Any) -> tuple[str, ...]:
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

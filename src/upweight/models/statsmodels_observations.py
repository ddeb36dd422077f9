"""What results of statsmodels say of their rows and their dispersion, which sample weights alone do not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Retrainable
from upweight.linear.model import LinearModel
from upweight.linear.observations import Observations

SAME = 1e-6  # relative difference up to which a scale is the one of the Pearson residuals


def with_observations(model: Retrainable, results: Any, own: Examples, train: Examples) -> Retrainable:
    """A linear model that stands for results, with what they say; any other model as it is.

    `own` are the examples that the results hold. Raises ValueError if `train` has their weights in another order.
    """
    if not isinstance(model, LinearModel):
        return model
    return model.with_observations(_observations(results, own.weights, train))


def _observations(results: Any, weights: NDArray[np.float64] | None, train: Examples) -> Observations:
    """The observations that every row of results stands for, by the ids of `train`, and their dispersion.

    Only `freq_weights` count observations: weights of WLS and GLS and `var_weights` are precisions, also whole ones.
    """
    if weights is None:
        return Observations(None, *_dispersion(results))
    if train.weights is None or not np.allclose(train.weights, weights):
        raise ValueError(
            f"expected the rows of the {type(results.model).__name__} results in their order, with the weights of the "
            "fit, got other weights; pass train=uw.examples_of(results)"
        )
    given = getattr(results.model, "freq_weights", None)
    counts = np.ones(len(weights)) if given is None else np.asarray(given, dtype=np.float64)
    present = np.where(weights > 0, counts, 0.0)
    return Observations(dict(zip(train.ids.tolist(), present.tolist(), strict=True)), *_dispersion(results))


def _dispersion(results: Any) -> tuple[float | None, bool]:
    """(φ, whether it is known): φ is None if it is estimated from the Pearson residuals."""
    if type(results.model).__name__ != "GLM":
        return None, False
    scale, estimated = float(results.scale), float(results.pearson_chi2 / results.df_resid)
    return (None if abs(scale - estimated) <= SAME * estimated else scale), True

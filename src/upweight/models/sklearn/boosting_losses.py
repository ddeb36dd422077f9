"""The losses that scikit-learn's boosting names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from upweight.models.tree_reading import unsupported_objective
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.elementwise_losses import Exponential, Gamma
from upweight.trees.losses import Logistic, Poisson, Quantile, Softmax, Squared


def loss_of(estimator: Any, supported: str) -> BoostingLoss:
    """The loss that `estimator.loss` names."""
    name, classes = estimator.loss, np.asarray(getattr(estimator, "classes_", ()))
    makers: dict[str, Callable[[], BoostingLoss]] = {
        "log_loss": lambda: Logistic(classes) if len(classes) == 2 else Softmax(classes),
        "exponential": lambda: Exponential(classes),
        "squared_error": Squared,
        "poisson": Poisson,
        "gamma": Gamma,
        "quantile": lambda: Quantile(getattr(estimator, "alpha", None) or estimator.quantile),
        "absolute_error": lambda: Quantile(0.5),
    }
    if name not in makers:
        percentile = "its leaves are re-fitted by a median, and its δ is a percentile of the residuals"
        reason = percentile if name == "huber" else ""
        raise unsupported_objective(type(estimator).__name__, name, supported, takes_custom=False, reason=reason)
    return makers[name]()

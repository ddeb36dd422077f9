"""Reads MLPClassifier and MLPRegressor of scikit-learn as networks of PyTorch; without torch they are refitted."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from upweight.core.examples import Examples
from upweight.core.labels import require_labels
from upweight.core.measurement import Loss, Margin, Measurement, Probability
from upweight.core.model_reader import UnsupportedSettingsError
from upweight.models.fitted_estimators import require_fitted
from upweight.models.pipeline import last_step

NAMES = ("MLPClassifier", "MLPRegressor")
ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
OUTPUTS = ("identity", "logistic", "softmax")


def reads(estimator: Any) -> bool:
    """Whether the estimator, or the last step of a pipeline, is one of these."""
    return type(last_step(estimator)).__name__ in NAMES


def read(estimator: Any, train: Examples, measure: Measurement) -> Any:
    """The fitted perceptron as a `TorchModel` with the same weights.

    Raises:
        UnsupportedSettingsError: torch is missing, or settings that such a network cannot follow.
        ValueError: it is not fitted, or was fitted on other examples.
    """
    final = last_step(estimator)
    name = type(final).__name__
    require_fitted(final, name)
    require_labels(train)
    if find_spec("torch") is None:
        raise UnsupportedSettingsError(
            f"{name} is explained as a network of PyTorch, which is not installed (pip install 'upweight[torch]')"
        )
    _require_settings(final, name, train, measure)
    _require_same_data(final, name, train)
    from upweight.models.pytorch.perceptron_network import perceptron_network

    return perceptron_network(estimator, final, train, measure)


def _require_settings(final: Any, name: str, train: Examples, measure: Measurement) -> None:
    """Raise UnsupportedSettingsError for settings, labels and measurements that the network does not have."""
    reason = None
    if getattr(final, "early_stopping", False):
        reason = f"{name} with early_stopping=True trains without a part of the examples, which stops it"
    elif final.activation not in ACTIVATIONS or final.out_activation_ not in OUTPUTS or final.loss == "poisson":
        reason = f"{name} has a loss or activation of another kind ({final.loss}, {final.activation})"
    elif name == "MLPClassifier" and (np.ndim(np.asarray(train.y)) != 1 or isinstance(final.classes_, list)):
        reason = f"{name} with several labels per example is no single classifier"
    elif type(measure) not in (Loss, Margin, Probability):
        reason = "a function of outputs as numpy arrays has no gradient in a network"
    if reason is not None:
        raise UnsupportedSettingsError(reason)


def _require_same_data(final: Any, name: str, train: Examples) -> None:
    """Raise ValueError for other labels or inputs, and if the solver counted another number of examples."""
    inputs, labels = final.coefs_[0].shape[0], getattr(final, "classes_", None)
    unknown = [] if labels is None else sorted(set(np.asarray(train.y).tolist()) - set(labels.tolist()))
    if unknown:
        raise ValueError(f"expected labels among {labels.tolist()[:12]}, got {unknown[0]!r}")  # type: ignore[union-attr]
    counted = None if final.solver == "lbfgs" or not final.n_iter_ else final.t_ / final.n_iter_
    if counted is not None and counted != len(train):
        raise ValueError(
            f"expected the data that {name} was fitted on, got {len(train):,} examples with {inputs} inputs, and its "
            f"solver counted {counted:,.0f} in every epoch; pass the same rows as to fit()"
        )

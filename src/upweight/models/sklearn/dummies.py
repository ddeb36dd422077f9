"""DummyClassifier and DummyRegressor of scikit-learn: predictions that do not depend on the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.model_reader import UnsupportedSettingsError
from upweight.linear.losses.class_scores import ProbabilityLoss
from upweight.linear.losses.squared import SquaredLoss
from upweight.models.sklearn.class_priors import ClassPriors
from upweight.models.sklearn.closed_form_spec import FormSpec
from upweight.models.sklearn.outputs_by_weights import Array, ClosedForm


def dummy_classifier(estimator: Any) -> FormSpec:
    """DummyClassifier with a strategy that is not random."""
    if estimator.strategy in ("stratified", "uniform"):
        raise ValueError(
            f"expected DummyClassifier(strategy='prior'), got {estimator.strategy!r}, whose predictions are drawn at "
            "random and have no causes; use 'prior', 'most_frequent' or 'constant'"
        )
    constant = None
    if estimator.strategy == "constant":
        constant = int(np.flatnonzero(estimator.classes_ == np.ravel(estimator.constant)[0])[0])
    priors = ClassPriors.of(len(estimator.classes_), None)
    form = partial(ShareForm, priors=priors, is_mode=estimator.strategy == "most_frequent", constant=constant)
    return FormSpec(ProbabilityLoss(estimator.classes_), form, is_sparse=True, takes_missing=True)


def dummy_regressor(estimator: Any) -> FormSpec:
    """DummyRegressor."""
    quantile = {"median": 0.5, "quantile": estimator.quantile}.get(estimator.strategy)
    constant = np.ravel(estimator.constant_) if estimator.strategy == "constant" else None
    form = partial(LocationForm, quantile=quantile, constant=constant)
    return FormSpec(SquaredLoss(np.size(estimator.constant_)), form, is_sparse=True, takes_missing=True)


@dataclass(frozen=True, eq=False)
class ShareForm(ClosedForm):
    """The shares of the classes, or 1 for one class.

    Attributes:
        priors: counts and shares of classes.
        is_mode: whether the most frequent class has probability 1.
        constant: position of the class that always has probability 1; None for none.
    """

    priors: ClassPriors
    is_mode: bool
    constant: int | None

    def fitted(self, factors: Array) -> Array:
        """The probabilities (K,)."""
        counts = self.priors.count(self.targets, factors * self.weights)
        if self.is_mode or self.constant is not None:
            chosen = int(counts.argmax()) if self.constant is None else self.constant
            return np.asarray(np.eye(len(counts))[chosen])
        return self.priors.probabilities(counts)

    def outputs(self, fitted: Array, x: Any) -> Array:
        """The same probabilities for every input."""
        return np.tile(fitted, (np.shape(x)[0], 1))


@dataclass(frozen=True, eq=False)
class LocationForm(ClosedForm):
    """The mean of the targets, a quantile of them, or a constant.

    Attributes:
        quantile: which quantile; None for the mean.
        constant: (outputs,) what is always predicted; None for none.
    """

    quantile: float | None
    constant: NDArray[Any] | None

    def fitted(self, factors: Array) -> Array:
        """The prediction (outputs,). Raises UnsupportedSettingsError for quantiles with weights."""
        weights, values = factors * self.weights, self.targets.reshape(len(self.targets), -1)
        if self.constant is not None:
            return np.asarray(self.constant, dtype=np.float64)
        if self.quantile is None:
            return np.asarray(weights @ values / weights.sum())
        if not np.isin(self.weights, (0.0, 1.0)).all():
            raise UnsupportedSettingsError(
                "expected a DummyRegressor of a quantile without sample weights, got some; fit it on copies of rows, "
                "or use strategy='mean'"
            )
        return np.asarray(np.percentile(values[weights > 0], 100.0 * self.quantile, axis=0))

    def outputs(self, fitted: Array, x: Any) -> Array:
        """The same prediction for every input."""
        return np.tile(fitted, (np.shape(x)[0], 1))

    def refusals(self) -> dict[int, str]:
        """The only example."""
        counted = np.flatnonzero(self.weights)
        return {int(counted[0]): "no example would be left"} if len(counted) == 1 else {}

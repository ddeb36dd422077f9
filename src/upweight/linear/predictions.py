"""Predictions of a linear model for people to read: by the estimator, or from the model's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Predictions
from upweight.linear.losses.loss import LinearLoss


def predictions_of_estimator(estimator: Any, family: LinearLoss, examples: Examples) -> Predictions:
    """The estimator's predictions as readable labels, with its probabilities if it has some."""
    predicted = estimator.predict(examples.x)
    readable = tuple(_readable(value, examples.labels) for value in predicted.tolist())
    if family.classes is None:
        return Predictions(readable)
    classes = tuple(_readable(label, examples.labels) for label in family.classes.tolist())
    has_probabilities = hasattr(estimator, "predict_proba")
    probabilities = np.asarray(estimator.predict_proba(examples.x)) if has_probabilities else None
    return Predictions(readable, classes, probabilities)


def predictions_at(
    outputs: NDArray[np.float64], family: LinearLoss, labels: Mapping[Any, str], has_probabilities: bool
) -> Predictions:
    """Predictions from the linear model's outputs (m, K), without the estimator."""
    if family.classes is None:
        means = family.expand(outputs)
        return Predictions(tuple((means[:, 0] if means.shape[1] == 1 else means).tolist()))
    classes = tuple(_readable(label, labels) for label in family.classes.tolist())
    probabilities = np.asarray(family.probabilities(outputs)) if has_probabilities else None
    return Predictions(tuple(classes[position] for position in family.decide(outputs)), classes, probabilities)


def _readable(value: Any, labels: Mapping[Any, str]) -> Any:
    return labels.get(value, value) if not isinstance(value, list) else value

"""The label that a model predicts, as a value of the training labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Measurable
from upweight.core.weights import weighted_positions

Array = NDArray[np.float64]


def class_labels(train: Examples, wanted_by: str) -> NDArray[Any]:
    """The different labels of the training examples of positive weight, sorted.

    Raises ValueError without labels, for several labels per example, and for fewer than two classes.
    """
    if train.y is None:
        raise ValueError(f"{wanted_by} needs the labels of the training set; pass Examples(x, y)")
    if train.y.ndim != 1:
        raise ValueError(f"{wanted_by} expects one label per training example, got labels of shape {train.y.shape}")
    classes = np.unique(train.y[weighted_positions(train)])
    if len(classes) < 2:
        raise ValueError(
            f"{wanted_by} expects at least two classes among the training labels, got only {classes[0].item()!r}: a "
            "model of one class always predicts it"
        )
    return np.asarray(classes)


def predicted_labels(model: Measurable, train: Examples, examples: Examples) -> tuple[NDArray[Any], Array | None]:
    """(predicted label of every example, its probability or None); labels are values of the training labels.

    The labels of the examples do not count, and may be missing. For a model with one output and two classes, which has
    no names for them, the prediction is the label with the higher measurement.

    Raises ValueError for models that predict numbers.
    """
    assert train.y is not None
    classes = class_labels(train, "a predicted label")
    labelled = _labelled(examples, np.full(len(examples), classes[0]))
    predictions = model.predict(labelled)
    if predictions.classes:
        values = {train.labels.get(value, value): value for value in classes.tolist()}
        labels = np.array([values.get(name, name) for name in predictions.predicted])
        if predictions.probabilities is None:
            return labels, None
        return labels, np.asarray(predictions.probabilities.max(axis=1), dtype=np.float64)
    if len(classes) > 2 or (train.y.dtype.kind == "f" and classes.tolist() not in ([0.0, 1.0], [-1.0, 1.0])):
        raise ValueError(
            f"expected a model that predicts one of {len(classes)} classes, got predictions like "
            f"{predictions.predicted[0]!r}; regression has no label that an attack could change"
        )
    values_of = np.stack([model.measure(_labelled(examples, np.full(len(examples), c))) for c in classes])
    return classes[values_of.argmax(axis=0)], None


def with_predicted(examples: Examples, labels: NDArray[Any]) -> Examples:
    """The same examples with these labels in place of their own."""
    return _labelled(examples, labels)


def _labelled(examples: Examples, labels: NDArray[Any]) -> Examples:
    return examples.replaced(y=labels[:, None] if examples.is_column else labels)

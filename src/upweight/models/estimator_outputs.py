"""Outputs: which predictions of an estimator are measured, and the loss on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.measurement import TrainingLoss
from upweight.core.model import Predictions
from upweight.linear.losses.binary import LogisticLoss
from upweight.trees.losses import Squared

Array = NDArray[np.float64]


class SeveralLabels(Squared):
    """Half the Brier score, summed over several label columns per example.

    Args:
        columns: the classes of each label column.
    """

    name = "squared loss of several labels"

    def __init__(self, columns: Sequence[NDArray[Any]]) -> None:
        super().__init__(sum(len(classes) for classes in columns))
        self.columns = [np.asarray(classes) for classes in columns]

    def encode(self, y: NDArray[Any]) -> Array:
        """0 and 1 for every class of every column, (n, classes). Raises ValueError for a label never trained on."""
        labels = np.asarray(y).reshape(len(y), -1)
        if labels.shape[1] != len(self.columns):
            raise ValueError(f"expected {len(self.columns)} labels per example, got {labels.shape[1]}")
        encoded = [_one_hot(column, classes) for column, classes in zip(labels.T, self.columns, strict=True)]
        return np.hstack(encoded)


@dataclass(frozen=True)
class Outputs:
    """The outputs of an estimator that are measured.

    Attributes:
        kind: "probabilities", "decision values", "predicted labels" or "predicted numbers".
        family: the loss on these outputs.
    """

    kind: str
    family: TrainingLoss

    def of(self, estimator: Any, x: Any) -> Array:
        """The outputs for these inputs, (m, K)."""
        if self.kind == "probabilities":
            return self._probabilities(estimator, estimator.predict_proba(x))
        if self.kind == "decision values":
            return np.asarray(estimator.decision_function(x), dtype=np.float64).reshape(_length(x), -1)
        predicted = np.asarray(estimator.predict(x))
        if self.kind == "predicted labels":
            return np.asarray(self.family.encode(predicted), dtype=np.float64)
        return predicted.astype(np.float64).reshape(_length(x), -1)

    def _probabilities(self, estimator: Any, given: Any) -> Array:
        """The probabilities with one column per class that the original estimator knows."""
        if not isinstance(self.family, SeveralLabels):
            assert self.family.classes is not None
            return _in_columns(np.asarray(given, dtype=np.float64), estimator.classes_, self.family.classes)
        if not isinstance(given, list):  # the probability of 1 for every label
            given = np.asarray(given, dtype=np.float64)
            return np.stack([1.0 - given, given], axis=2).reshape(len(given), -1)
        known = _classes_of_columns(estimator) or self.family.columns
        parts = zip(given, known, self.family.columns, strict=True)
        return np.hstack([_in_columns(np.asarray(part, dtype=np.float64), have, want) for part, have, want in parts])


def outputs_of(estimator: Any, x: Any, y: NDArray[Any], is_classifier: bool) -> Outputs:
    """The most informative outputs that the estimator has: probabilities, decision values or predictions."""
    if not is_classifier:
        columns = np.asarray(estimator.predict(x)).reshape(_length(x), -1).shape[1]
        return Outputs("predicted numbers", Squared(columns))
    if y.ndim > 1:
        return _outputs_of_several(estimator, x, y)
    classes = np.asarray(estimator.classes_) if hasattr(estimator, "classes_") else np.unique(y)
    if hasattr(estimator, "predict_proba"):
        return Outputs("probabilities", Squared(len(classes), classes))
    pairs = getattr(estimator, "decision_function_shape", None) == "ovo" and len(classes) > 2
    if hasattr(estimator, "decision_function") and not pairs:
        values = np.asarray(estimator.decision_function(x))
        outputs = 1 if values.ndim == 1 else values.shape[1]
        if outputs == (1 if len(classes) == 2 else len(classes)):
            return Outputs("decision values", LogisticLoss(outputs, classes))
    return Outputs("predicted labels", Squared(len(classes), classes))


def readable_predictions(
    predicted: Any,
    classes: NDArray[Any] | None,
    labels: Mapping[Any, str],
    probabilities: Callable[[], Array | None],
) -> Predictions:
    """What an estimator predicts, with readable labels.

    Args:
        predicted: (n,), or (n, targets) of several targets.
        classes: the class labels; None for numbers.
        labels: label → what a person reads.
        probabilities: () → (n, classes), or None; called for one target of classes only.
    """
    of_targets = np.asarray(predicted)
    if of_targets.ndim > 1 and of_targets.shape[1] > 1:
        return Predictions(tuple(tuple(row) for row in of_targets.tolist()))
    values = of_targets.reshape(-1).tolist()
    if classes is None:
        return Predictions(tuple(values))
    names = tuple(labels.get(value, value) for value in classes.tolist())
    return Predictions(tuple(labels.get(value, value) for value in values), names, probabilities())


def _outputs_of_several(estimator: Any, x: Any, y: NDArray[Any]) -> Outputs:
    columns = _classes_of_columns(estimator) or [np.unique(column) for column in y.T]
    family = SeveralLabels(columns)
    if hasattr(estimator, "predict_proba"):
        given = estimator.predict_proba(x)
        are_binary = all(np.array_equal(classes, [0, 1]) for classes in columns)
        if isinstance(given, list) or (np.shape(given) == y.shape and are_binary):
            return Outputs("probabilities", family)
    return Outputs("predicted labels", family)


def _classes_of_columns(estimator: Any) -> list[NDArray[Any]] | None:
    """The classes of each label column, as the estimator lists them; None if it does not."""
    classes = getattr(estimator, "classes_", None)
    if not isinstance(classes, list) or not all(np.ndim(part) == 1 for part in classes):
        return None
    return [np.asarray(part) for part in classes]


def _in_columns(values: Array, have: Any, want: NDArray[Any]) -> Array:
    """The columns for the classes `have`, moved to those of `want`; a class that is not there has 0."""
    have = np.asarray(have)
    if np.array_equal(have, want):
        return values
    out = np.zeros((len(values), len(want)))
    out[:, np.searchsorted(want, have)] = values
    return out


def _one_hot(labels: NDArray[Any], classes: NDArray[Any]) -> Array:
    unknown = ~np.isin(labels, classes)
    if unknown.any():
        raise ValueError(
            f"expected labels among {classes.tolist()[:12]}, got {labels[unknown][0]!r}; the model was never trained "
            "on that class, so its loss is not defined"
        )
    return np.asarray(labels[:, None] == classes, dtype=np.float64)


def _length(x: Any) -> int:
    return int(x.shape[0]) if hasattr(x, "shape") else len(x)

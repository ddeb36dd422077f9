"""The number that a local explanation explains: the probability of a label, or the predicted number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.chosen_outputs import predictions_of
from upweight.core.examples import Examples
from upweight.core.model import Measurable, Predictions

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ExplainedOutput:
    """One number per example.

    Attributes:
        model: the model.
        query: the explained example, (1,); other examples get its label if the model needs one.
        described: the number in words.
        label: the readable label that it is about; None if it is about none.
        raw_label: the same label as in `y`.
        column: of the probabilities; None if the model has none.
    """

    model: Measurable
    query: Examples
    described: str
    label: Any = None
    raw_label: Any = None
    column: int | None = None

    def of_inputs(self, x: Any) -> Array:
        """The number of examples with these inputs, (m,). Raises ValueError if it is not finite."""
        return self.of(inputs_like(self.query, x, None if self.label is None else self.raw_label))

    def of(self, examples: Examples) -> Array:
        """The number of these examples, (m,). Raises ValueError if it is not finite."""
        if self.label is not None and self.column is None:
            values = self.model.measure(examples.replaced(y=np.full(len(examples), self.raw_label)))
        else:
            values = self._predicted(self.model.predict(examples))
        if not np.isfinite(values).all():
            raise ValueError(f"expected a finite {self.described}, got NaN or infinite values for some neighbours")
        return values

    def _predicted(self, predictions: Predictions) -> Array:
        if self.column is not None and predictions.probabilities is not None:
            return np.asarray(predictions.probabilities[:, self.column], dtype=np.float64)
        return np.asarray(predictions.predicted, dtype=np.float64)


def inputs_like(query: Examples, x: Any, raw_label: Any = None) -> Examples:
    """Examples with these inputs, named as the query, which have its label or this one."""
    m = len(x) if isinstance(x, list) else int(x.shape[0])
    y = None if query.y is None else np.repeat(query.y, m, axis=0)
    if raw_label is not None:
        y = np.full(m, raw_label)
    return query.replaced(x=x, y=y, ids=np.arange(m), weights=None, shown=None)


def explained_output(model: Measurable, query: Examples, label: Any = None) -> ExplainedOutput:
    """The probability of this label (None for the predicted one), or the predicted number.

    Without probabilities it is the measurement of the model with this label.

    Raises:
        ValueError: more than one query, an unknown label, a label for a regression, or a model that predicts several
            numbers at once.
    """
    require_one(query)
    predictions = predictions_of(model, query)
    if not predictions.classes:
        return _number(model, query, predictions, label)
    raw_labels = {query.labels.get(raw, raw): raw for raw in _raw_classes(model, query, predictions)}
    readable = predictions.predicted[0] if label is None else query.labels.get(label, label)
    classes = list(predictions.classes)
    if readable not in classes:
        raise ValueError(f"expected one of the labels {classes[:12]}, got {label!r}")
    raw = raw_labels.get(readable, readable)
    if predictions.probabilities is None:
        described = f"{model.measurement} of label {readable}"
        return ExplainedOutput(model, query, described, readable, raw)
    described = f"probability of {readable}"
    return ExplainedOutput(model, query, described, readable, raw, classes.index(readable))


def require_one(query: Examples) -> None:
    """Raise ValueError for more than one query."""
    if len(query) != 1:
        raise ValueError(f"expected one query, got {len(query)}; pass queries.select([id])")


def _raw_classes(model: Measurable, query: Examples, predictions: Predictions) -> list[Any]:
    if model.classes is not None:
        return list(np.asarray(model.classes).tolist())
    return [*query.labels, *predictions.classes]


def _number(model: Measurable, query: Examples, predictions: Predictions, label: Any) -> ExplainedOutput:
    if label is not None:
        raise ValueError(f"expected no label, because this model predicts numbers, got label={label!r}")
    predicted = predictions.predicted[0]
    if predicted is None:
        raise ValueError(
            "expected a model that predicts a label or a number, got one whose outputs are neither; pass a loss= whose "
            "output is one row per example"
        )
    if np.ndim(predicted) > 0:
        raise ValueError(f"expected a model that predicts one number, got {np.size(predicted)} at once")
    return ExplainedOutput(model, query, "prediction")

"""The measurements and predictions of a retrained model, as one array for files and other processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Predictions

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RetrainedOutputs:
    """Evaluates a retrained model to the columns measurement, prediction and probabilities.

    If there are `classes` (those of the model before retraining), a prediction is an index among them. Otherwise it is
    the model's outputs, one column each.
    """

    __name__: ClassVar[str] = "answers"

    classes: tuple[Any, ...]

    @classmethod
    def of(cls, model: Any, queries: Examples) -> RetrainedOutputs:
        """Make the outputs for retrainings of this model."""
        return cls(model.predict(queries.take([0])).classes)

    def __call__(self, model: Any, queries: Examples) -> Array:
        """(m, columns). Raises ValueError if the retrained model has other classes."""
        predictions = model.predict(queries)
        if predictions.classes != self.classes:
            raise ValueError(f"expected retrained models of the classes {self.classes}, got {predictions.classes}")
        index = {name: number for number, name in enumerate(self.classes)}
        predicted = [index[name] for name in predictions.predicted] if self.classes else predictions.predicted
        columns = [np.asarray(model.measure(queries)), np.asarray(predicted, dtype=np.float64)]
        if predictions.probabilities is not None:
            columns.append(predictions.probabilities)
        return np.column_stack([column.reshape(len(queries), -1) for column in columns])

    def read(self, columns: Array) -> tuple[Array, Predictions]:
        """(measurements (m,), predictions) from the columns of a retrained model."""
        if not self.classes:
            values = columns[:, 1] if columns.shape[1] == 2 else columns[:, 1:]
            has_predictions = not np.isnan(values).all()  # None was stored as NaN
            return columns[:, 0], Predictions(tuple(values.tolist()) if has_predictions else (None,) * len(values))
        predictions = tuple(self.classes[index] for index in columns[:, 1].astype(int).tolist())
        probabilities = columns[:, 2:] if columns.shape[1] > 2 else None
        return columns[:, 0], Predictions(predictions, self.classes, probabilities)

"""RetrainedOutputs: what a retrained model measures and predicts, as one array that processes and files can hold."""

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
    """Asks for measurements and predictions, as columns: the measurement, the prediction, the probabilities.

    Where there are `classes` (those of the model before it was trained again), a prediction is a place among them;
    else it is as many numbers as the model has outputs.
    """

    __name__: ClassVar[str] = "answers"

    classes: tuple[Any, ...]

    @classmethod
    def of(cls, model: Any, queries: Examples) -> RetrainedOutputs:
        """For trainings of this model."""
        return cls(model.predict(queries.take([0])).classes)

    def __call__(self, model: Any, queries: Examples) -> Array:
        """(m, columns). Raises ValueError where training gave a model of other classes."""
        predictions = model.predict(queries)
        if predictions.classes != self.classes:
            raise ValueError(f"expected retrained models of the classes {self.classes}, got {predictions.classes}")
        place = {name: number for number, name in enumerate(self.classes)}
        numbers = [place[name] for name in predictions.predicted] if self.classes else predictions.predicted
        columns = [np.asarray(model.measure(queries)), np.asarray(numbers, dtype=np.float64)]
        if predictions.probabilities is not None:
            columns.append(predictions.probabilities)
        return np.column_stack([column.reshape(len(queries), -1) for column in columns])

    def read(self, answers: Array) -> tuple[Array, Predictions]:
        """(measurements (m,), predictions) from what asking gave."""
        if not self.classes:
            values = answers[:, 1] if answers.shape[1] == 2 else answers[:, 1:]
            return answers[:, 0], Predictions(tuple(values.tolist()))
        predictions = tuple(self.classes[place] for place in answers[:, 1].astype(int).tolist())
        probabilities = answers[:, 2:] if answers.shape[1] > 2 else None
        return answers[:, 0], Predictions(predictions, self.classes, probabilities)

"""A model whose worker process dies during a training, once or always."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import upweight as uw
from upweight.core.model import Parametric, Predictions, Retrainable

Array = NDArray[np.float64]
TRAIN = uw.Examples(np.arange(12.0)[:, None], np.arange(12) % 2)
QUERIES = uw.Examples(np.arange(3.0)[:, None])


@dataclass(frozen=True, eq=False)
class Mortal(Parametric, Retrainable):
    """Its one parameter is the weighted mean of the inputs; training without example 3 kills the process."""

    mean: float
    marker: str = ""
    always: bool = False

    measurement = "mean"

    @property
    def parameters(self) -> Array:
        return np.array([self.mean])

    def identity(self) -> dict[str, str]:
        return {"parameters": str(self.mean)}  # where it dies does not change its results

    def with_parameters(self, parameters: Any) -> Mortal:
        return Mortal(float(parameters[0]), self.marker, self.always)

    def measure(self, queries: uw.Examples) -> Array:
        return self.mean + queries.x[:, 0]

    def predict(self, examples: uw.Examples) -> Predictions:
        return Predictions(tuple(self.measure(examples)))

    def retrain(self, train: uw.Examples, weights: Array, seed: int = 0) -> Mortal:
        if self.marker and weights[3] == 0 and (self.always or not Path(self.marker).exists()):
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.with_parameters([float(train.x[:, 0] @ weights / weights.sum()) + seed])


def weights() -> Array:
    """Weights that leave out each example once."""
    return 1.0 - np.eye(12)


def truth() -> Array:
    """The parameters after training with these weights."""
    return (66 - np.arange(12.0)[:, None]) / 11

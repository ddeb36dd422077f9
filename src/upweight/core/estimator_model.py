"""EstimatorModel: what all models have in common that were read from a fitted estimator."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from numpy.typing import NDArray

from upweight.core.fitted_state import FittedState
from upweight.core.forgettable import Forgettable
from upweight.core.measurement import Measurement, TrainingLoss
from upweight.core.model import Embeddable


class EstimatorModel(Forgettable, Embeddable):
    """A model of a fitted estimator or pipeline, whose outputs have a loss.

    Attributes:
        predictor: the estimator itself, which is never changed.
        measurement_of: the measurement of a query.
    """

    predictor: Any
    measurement_of: Measurement

    @property
    @abstractmethod
    def training_loss(self) -> TrainingLoss:
        """The loss of the outputs."""

    @property
    def measurement(self) -> str:
        """The measurement in words, with its unit."""
        return self.measurement_of.described(self.training_loss)

    @property
    def classes(self) -> NDArray[Any] | None:
        """The class labels; None for numeric targets."""
        return self.training_loss.classes

    @property
    def estimator(self) -> Any:
        """The estimator or pipeline."""
        return self.predictor

    def version(self) -> FittedState:
        """The fitted state of the estimator and its steps, which changes when they are fitted again."""
        return FittedState(self.predictor)

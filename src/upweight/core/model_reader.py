"""`ModelReader`: the interface of a model family that turns trained estimators into models."""

from __future__ import annotations

from typing import Any, Protocol

from upweight.core.examples import Examples
from upweight.core.measurement import Measurement
from upweight.core.model import Retrainable


class UnsupportedSettingsError(ValueError):
    """Raised by `read` for an estimator of its family with settings that it cannot explain; the message has the reason.

    `explainable` then explains the estimator by refitting it, if it can.
    """


class ModelReader(Protocol):
    """Reads the estimators of one model family for `explainable`; a module with these two functions is one.

    `read` may also take `smoothing`, `objective` and `loss` of `explainable`, as keywords with a default; `explainable`
    refuses those that it does not take.
    """

    def reads(self, estimator: Any) -> bool:
        """Whether the estimator belongs to this family. Called with estimators of all kinds, so it must be cheap."""

    def read(self, estimator: Any, train: Examples, measure: Measurement) -> Retrainable:
        """The fitted estimator as a model with this measurement; the estimator is not changed.

        A model that cannot be retrained returns the reason from `lacks(Retrainable)`.

        Raises:
            ValueError: the estimator is not fitted, or was fitted on other examples.
            UnsupportedSettingsError: it has settings that this family cannot explain.
        """

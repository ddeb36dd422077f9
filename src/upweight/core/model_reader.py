"""ModelReader: what makes models out of trained estimators of one kind."""

from __future__ import annotations

from typing import Any, Protocol

from upweight.core.examples import Examples
from upweight.core.measurement import Measurement
from upweight.core.model import Retrainable


class ModelReader(Protocol):
    """Reads the estimators of one model family for `explainable`; a module with these two functions is one.

    `read` may take `smoothing`, `objective` and `loss` of `explainable` too, as keywords with a default; those that it
    does not name are refused.
    """

    def reads(self, estimator: Any) -> bool:
        """Whether the estimator is of this family; cheap, for it is called with estimators of all kinds."""

    def read(self, estimator: Any, train: Examples, measure: Measurement) -> Retrainable:
        """The fitted estimator as a model that measures this; the estimator is not changed.

        A model that cannot be trained again says so in `lacks(Retrainable)`.

        Raises:
            ValueError: an estimator that is not fitted, or training examples that it was not fitted on.
        """

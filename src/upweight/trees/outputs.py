"""`TreeOutputs`: a retrained ensemble that measures and predicts, and whose trees were not read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.data_cache import DataCache
from upweight.core.examples import Examples
from upweight.core.model import Measurable, Predictions

if TYPE_CHECKING:
    from upweight.trees.model import TreeModel

Array = NDArray[np.float64]


class TreeOutputs(Measurable):
    """Measurements and predictions by the library's own raw predictions.

    Args:
        like: the model before retraining, with the loss and the measurement.
        raw: `Examples.x` → the raw predictions, (n, K) or (n,).
    """

    def __init__(self, like: TreeModel, raw: Callable[[Any], Array]) -> None:
        self._like, self._raw = like, raw
        self._margins: DataCache[Array] = DataCache(1)

    @property
    def measurement(self) -> str:
        """The measurement, in words."""
        return self._like.measurement

    def measure(self, queries: Examples) -> Array:
        """The measurement of every query."""
        return self._like.measure_margins(queries, self._of(queries))

    def predict(self, examples: Examples) -> Predictions:
        """Predictions, with readable labels."""
        return self._like.predictions_at(examples, self._of(examples))

    def _of(self, examples: Examples) -> Array:
        return self._margins.get_or_make(
            examples, lambda: np.asarray(self._raw(examples.x), dtype=np.float64).reshape(len(examples), -1)
        )

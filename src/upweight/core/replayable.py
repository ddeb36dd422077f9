"""Replayable: models whose training can be replayed and differentiated in the example weights."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Retrainable
from upweight.core.replay import Replay
from upweight.core.rows import Rows


class Replayable(Retrainable):
    """A model whose training can be replayed step by step and differentiated in the example weights."""

    @abstractmethod
    def replay(self, train: Examples, weights: NDArray[np.float64], seed: int = 0) -> Replay:
        """The training run with these weights (n,) times the examples' own, as in `retrain`."""

    def after(self, replay: Replay) -> Any:
        """This model as the run left it. By default it has the parameters of the run."""
        return self.with_parameters(replay.parameters)  # type: ignore[attr-defined]

    def outcome_rows(self, queries: Examples, replay: Replay) -> Rows:
        """Gradients of the measurement in what the run determined: (m, p), or (m, p + b) with running statistics."""
        rows: Rows = self.measure_rows(queries)  # type: ignore[attr-defined]
        return rows

    def running_statistics(self, replay: Replay) -> NDArray[np.float64]:
        """The running statistics of this model, (b,), in the order of those of the run."""
        return np.empty(0)

"""The retraining engine: hands out removals, measures every retrained model, brings the numbers back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.processes import each

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]  # (done, of how many)


def measure_without(
    model: Any,
    train: Examples,
    queries: Examples,
    removals: Sequence[NDArray[np.intp]],
    processes: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Array, Array]:
    """(measurements after training on everything (m,), after training without each removal (m, removals)).

    Removals are positions in `train`. The first training removes nothing: effects are differences of two trainings
    of the same kind, so what the handed-in model lacks to its optimum cancels.
    """
    shared = (model, train, queries, seed)
    # Here rather than in a worker: what the model prepares for its first training, workers then inherit.
    base = _measured_without(shared, np.empty(0, dtype=np.intp))
    found = np.empty((len(queries), len(removals)))
    for done, (place, measured) in enumerate(each(_measured_without, shared, removals, processes), start=1):
        found[:, place] = measured
        if progress is not None:
            progress(done, len(removals))
    return base, found


def _measured_without(shared: tuple[Any, Examples, Examples, int], removed: NDArray[np.intp]) -> Array:
    model, train, queries, seed = shared
    weights = np.ones(len(train))
    weights[removed] = 0.0
    return np.asarray(model.retrain(train, weights, seed).measure(queries))

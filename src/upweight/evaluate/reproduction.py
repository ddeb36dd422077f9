"""Whether training on everything gives back the model that was handed in: the most common silent error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Differentiable
from upweight.retraining.engine import run_tasks
from upweight.retraining.retraining import ONE_BY_ONE
from upweight.retraining.task import Task

Array = NDArray[np.float64]
DRIFT = 0.05  # share of a typical effect that retraining on everything may change before the reader is told


def check_reproduction(model: Any, train: Examples, queries: Examples, base: Array, actual: Array) -> dict[str, Any]:
    """`drift` (how far training on everything moves a measurement), `gradient_norm`, `warnings`; `noise` of two runs.

    Args:
        model: as handed in.
        train: what training is repeated on.
        queries: what is measured.
        base: (m,) measurements after training on everything.
        actual: (m, removals) effects, whose typical size says whether a drift matters.
    """
    drift = float(np.abs(base - model.measure(queries)).max())
    typical = float(np.median(np.abs(actual).max(axis=0)))
    norm = model.gradient_norm(train) if isinstance(model, Differentiable) else None
    found: dict[str, Any] = {"gradient_norm": norm, "drift": drift, "warnings": []}
    if drift <= DRIFT * typical:
        return found
    by = (
        f"training it again on everything changes the measurement by up to {drift:.2g}, a typical removal by "
        f"{typical:.2g}"
    )
    if model.converges:
        known = "" if norm is None else f" (gradient norm {norm:.2g} of what random data would leave)"
        found["warnings"] = [
            f"The model handed in is not at its optimum on the data handed in{known}: {by}. Lower tol or raise "
            "max_iter, or check that these are the data it was fitted on."
        ]
        return found
    one, two = run_tasks(ONE_BY_ONE, model, train, [Task(), Task()], queries)
    found["noise"] = float(np.abs(one - two).max())
    if found["noise"] > 0:
        found["warnings"] = [
            f"Training is not deterministic: two runs with the same weights and seed differ by up to "
            f"{found['noise']:.2g}, a typical removal changes the measurement by {typical:.2g}. Effects below "
            f"{2 * found['noise']:.2g} cannot be verified; seed everything that the training draws."
        ]
    else:
        found["warnings"] = [
            f"The training handed in is not the one that made the model: {by}. Check its seed (random_state), and that "
            "these are all the data it was trained on and no others; of a net also where it begins (initial) and its "
            "batches: TorchModel.trained makes a model and its training in one."
        ]
    return found

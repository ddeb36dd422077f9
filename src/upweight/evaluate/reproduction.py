"""Reproduction: whether retraining on everything gives the given model, as every comparison assumes."""

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
MAX_DRIFT = 0.05  # largest distance of the retrained from the given model without a warning, in typical effects


def check_reproduction(model: Any, train: Examples, queries: Examples, base: Array, actual: Array) -> dict[str, Any]:
    """Compare the model with the one that retraining on everything gives.

    Args:
        model: the given model.
        train: its training set.
        queries: what is measured.
        base: measurements after retraining on everything, (m,).
        actual: effects, (m, removals), whose typical size decides whether a drift matters.

    Returns:
        `drift` (the largest change of a measurement by retraining on everything), `gradient_norm`, `warnings`; and
        `noise` (the largest difference between two equal trainings) if the drift needs an explanation.
    """
    drift = float(np.abs(base - model.measure(queries)).max())
    typical = float(np.median(np.abs(actual).max(axis=0)))
    norm = model.gradient_norm(train) if isinstance(model, Differentiable) else None
    facts: dict[str, Any] = {"gradient_norm": norm, "drift": drift, "warnings": []}
    if drift <= MAX_DRIFT * typical:
        return facts
    sizes = (
        f"retraining on everything changes the measurement by up to {drift:.2g}, a typical removal changes it by "
        f"{typical:.2g}"
    )
    if model.converges:
        gradient = "" if norm is None else f" (gradient norm {norm:.2g} of what random data would leave)"
        facts["warnings"] = [
            f"The given model is not at its optimum on the given data{gradient}: {sizes}. Lower tol or raise "
            "max_iter, or check that these are the data it was fitted on."
        ]
        return facts
    first, second = run_tasks(ONE_BY_ONE, model, train, [Task(), Task()], queries)
    facts["noise"] = float(np.abs(first - second).max())
    if facts["noise"] > 0:
        facts["warnings"] = [
            f"Training is not deterministic: two runs with the same weights and seed differ by up to "
            f"{facts['noise']:.2g}, a typical removal changes the measurement by {typical:.2g}. Effects below "
            f"{2 * facts['noise']:.2g} cannot be verified; seed all random numbers that the training draws."
        ]
    else:
        facts["warnings"] = [
            f"The given training is not the one that made the model: {sizes}. Check its seed (random_state), and "
            "that these are exactly the data it was trained on; for a net also check its initial state (initial) and "
            "its batches. TorchModel.trained makes a model together with its training."
        ]
    return facts

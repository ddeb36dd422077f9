"""Recorded steps repeated without random examples, to see whether derivatives through them predict anything."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.checkpoints import Stepwise
from upweight.core.examples import Examples
from upweight.core.weights import weighted_positions

Array = NDArray[np.float64]
SHARE = 0.02  # of the training set, left out by each removal
REMOVALS, MAX_FEW_QUERIES, REMOVALS_OF_FEW = 4, 3, 8  # more removals where few queries are measured
MIN_AGREEMENT = 0.5  # cosine of actual and predicted effects below which derivatives say too little
ROUNDING = 1e-4  # share of a measurement below which effects may be rounding


class RepeatedRemovals:
    """Trainings without random sets of examples, made when an answer needs them.

    A derivative holds for changes to which a training responds in proportion. With large steps or at a high learning
    rate, leaving out an example is not such a change, and the derivative may grow without saying anything.

    Args:
        model: the trained model.
        train: its training set.
        steps: the recorded steps.
    """

    def __init__(self, model: Any, train: Examples, steps: Stepwise) -> None:
        self._model, self._train, self._steps = model, train, steps
        self._models: list[Any] = []

    def effects(self, queries: Examples, values: Array, among: int) -> tuple[Array, Array]:
        """(Actual, predicted) effects of the removals on these queries by their scores (m, n), both (m, removals).

        `among`: how many queries the answer has in all. There are no removals if the steps cannot be repeated.
        """
        count = REMOVALS_OF_FEW if among <= MAX_FEW_QUERIES else REMOVALS
        if len(self._models) < count:
            missing = self._left_out[len(self._models) : count]
            self._models += self._steps.retrained(self._model, 1.0 - missing)
        models = self._models[:count]
        measured = np.array([model.measure(queries) for model in (self._model, *models)])
        return (measured[:1] - measured[1:]).T, values @ self._left_out[: len(models)].T

    @cached_property
    def _left_out(self) -> Array:
        """1 for the examples that a removal leaves out, else 0, (removals, n)."""
        rng, positions = np.random.default_rng(0), weighted_positions(self._train)
        left_out = np.zeros((REMOVALS_OF_FEW, len(self._train)))
        for row in left_out:
            row[rng.choice(positions, max(1, round(SHARE * len(positions))), replace=False)] = 1.0
        return left_out


def removal_facts(actual: Array, predicted: Array, measured: Array) -> dict[str, Any]:
    """Diagnostics of the (m, removals) effects: agreement, and a warning if there is hardly any.

    `measured` are the measurements (m,), next to which small effects are rounding.
    """
    sizes = float(np.linalg.norm(actual)), float(np.linalg.norm(predicted))
    if not actual.size or max(sizes) <= ROUNDING * float(np.linalg.norm(measured)) * np.sqrt(actual.shape[1]):
        return {}
    agreement = float((actual * predicted).sum()) / (sizes[0] * sizes[1]) if all(sizes) else 0.0
    facts: dict[str, Any] = {"removals": actual.shape[1], "agreement": agreement}
    if not agreement >= MIN_AGREEMENT:
        facts["warnings"] = [
            f"Repeating the recorded steps without {actual.shape[1]} random sets of examples contradicts these scores: "
            f"actual and predicted effects agree at {agreement:.2f} (1 is perfect, 0 is chance), where the predicted "
            f"ones are {sizes[1] / (sizes[0] or np.inf):.2g} times as large. This training does not respond smoothly "
            "to its examples, as with large steps, and derivatives through it do not predict removals: do not act on "
            "single examples. Train with a smaller lr, larger batches or warm-up, or compare other methods with "
            "retraining (uw.verify)."
        ]
    return facts

"""Recorded steps repeated without random examples, to see whether derivatives through them predict anything."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.core.checkpoints import Stepwise
from upweight.core.examples import Examples
from upweight.core.weights import weighted_positions

Array = NDArray[np.float64]
SHARE = 0.02  # of the training set, left out by each removal
REMOVALS, MAX_FEW_QUERIES, REMOVALS_OF_FEW = 4, 3, 8  # more removals where few queries are measured
MIN_AGREEMENT = 0.5  # cosine of actual and predicted effects below which derivatives say too little
MAX_DRIFT = 0.5  # distance of the repeated net from the recorded one, relative to the effects of removals
ROUNDING = 1e-4  # share of a measurement below which effects may be rounding


class Effects(NamedTuple):
    """What repeated steps do to m queries.

    Attributes:
        measured, repeated: the measurements (m,) on the recorded net, and on the one that the same steps train again.
        actual, predicted: effects of the removals, (m, removals).
    """

    measured: Array
    repeated: Array
    actual: Array
    predicted: Array

    @classmethod
    def joined(cls, parts: Sequence[Effects]) -> Effects:
        """Those of several sets of queries."""
        return cls(*(np.concatenate(same) for same in zip(*parts, strict=True)))


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

    def effects(self, queries: Examples, values: Array, among: int) -> Effects:
        """The effects of the removals on these queries, and those that the scores (m, n) predict.

        `among`: how many queries the answer has in all. There are no removals if the steps cannot be repeated.
        """
        count = 1 + (REMOVALS_OF_FEW if among <= MAX_FEW_QUERIES else REMOVALS)
        if len(self._models) < count:
            missing = self._left_out[len(self._models) : count]
            self._models += self._steps.retrained(self._model, 1.0 - missing)
        models, measured = self._models[:count], self._model.measure(queries)
        if not models:
            return Effects(measured, measured, *np.empty((2, len(queries), 0)))
        repeated, *without = (model.measure(queries) for model in models)
        predicted = values @ self._left_out[1:count].T
        return Effects(measured, repeated, repeated[:, None] - np.stack(without, axis=1), predicted)

    @cached_property
    def _left_out(self) -> Array:
        """1 for the examples that a removal leaves out, else 0, (1 + removals, n); the first one leaves out none."""
        rng, positions = np.random.default_rng(0), weighted_positions(self._train)
        left_out = np.zeros((1 + REMOVALS_OF_FEW, len(self._train)))
        for row in left_out[1:]:
            row[rng.choice(positions, max(1, round(SHARE * len(positions))), replace=False)] = 1.0
        return left_out


def removal_facts(effects: Effects) -> dict[str, Any]:
    """Diagnostics: how many removals there were and how far they agree, and a warning if they hardly do."""
    actual, predicted = effects.actual, effects.predicted
    sizes = float(np.linalg.norm(actual)), float(np.linalg.norm(predicted))
    count, drift = actual.shape[1], float(np.linalg.norm(effects.measured - effects.repeated))
    rounding = ROUNDING * float(np.linalg.norm(effects.measured))
    if not actual.size or max(*sizes, drift * np.sqrt(count)) <= rounding * np.sqrt(count):
        return {}
    agreement = float((actual * predicted).sum()) / (sizes[0] * sizes[1]) if all(sizes) else 0.0
    facts: dict[str, Any] = {"removals": count, "agreement": agreement}
    if drift > rounding and not drift * np.sqrt(count) <= MAX_DRIFT * sizes[0]:
        facts["warnings"] = [_other_end_warning(drift * np.sqrt(count) / (sizes[0] or drift))]
    elif not agreement >= MIN_AGREEMENT:
        facts["warnings"] = [_disagreement_warning(count, agreement, sizes[1] / (sizes[0] or np.inf))]
    return facts


def _other_end_warning(drift: float) -> str:
    return (
        "Repeating the recorded steps does not end at the recorded net: the measurements of these queries differ by "
        f"{drift:.2g} times the effects of removing 2 % of the examples. Either the training did something between the "
        "checked steps (another optimiser, an average of weights, skipped steps; record with every=1 to find where), "
        "or it is so rough that rounding changes it. Scores can be wrong in order and sign: do not act on them without "
        "retraining (uw.verify)."
    )


def _disagreement_warning(count: int, agreement: float, ratio: float) -> str:
    return (
        f"Repeating the recorded steps without {count} random sets of examples contradicts these scores: actual and "
        f"predicted effects agree at {agreement:.2f} (1 is perfect, 0 is chance), and the predicted ones are "
        f"{ratio:.2g} times as large. This training does not respond smoothly to its examples, as with large steps, "
        "and derivatives through it do not predict removals: do not act on single examples. Train with a smaller lr, "
        "larger batches or warm-up, or compare other methods with retraining (uw.verify)."
    )

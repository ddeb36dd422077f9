"""Recorded steps repeated without random examples, to see whether scores predict anything of this training."""

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
REMOVALS, MAX_FEW_QUERIES, REMOVALS_OF_FEW = 4, 3, 8  # at most; more of them where few queries are measured
SURE_OF_ONE, SURE_AGREEMENT = 0.97, 0.93  # agreement of one removal, and of more, at which no more are made
MIN_EFFECTS = 4  # that this agreement is of
MIN_AGREEMENT = 0.5  # cosine of actual and predicted effects below which scores say too little
MAX_DRIFT = 0.5  # distance of the repeated net from the recorded one, relative to the effects of removals
ROUNDING = 1e-4  # share of a measurement below which effects may be rounding
NOTHING = -1  # the number of the removal that leaves out none
ROUGH_TRAINING = (
    "This training does not respond smoothly to its examples, as with large steps, and derivatives through it do not "
    "predict removals: do not act on single examples. Train with a smaller lr, larger batches or warm-up, or compare "
    "other methods with retraining (uw.verify)."
)
COARSE_SEGMENTS = (
    "Segments of constant curvature do not describe this training: its steps are too large, or its segments too few. "
    "Do not act on single examples. Follow the recorded steps (uw.SOURCE()), or compare other methods with retraining "
    "(uw.verify)."
)
NO_STEPS = (
    "scores are not compared with repeated trainings, which need the examples of every step (batch= of "
    "trajectory.record) and the initial parameters"
)
SOME_MODULES = "scores of some modules are not compared with repeated trainings, which train all of them"


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

    @property
    def agreement(self) -> float:
        """The cosine of actual and predicted effects; 0 if there are none."""
        sizes = float(np.linalg.norm(self.actual)) * float(np.linalg.norm(self.predicted))
        return float((self.actual * self.predicted).sum()) / sizes if sizes else 0.0


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
        self._models: dict[int, Any] = {}  # by the removal, or NOTHING

    @cached_property
    def left_out(self) -> Array:
        """1 for the examples that a removal leaves out, else 0, (removals, n)."""
        rng, positions = np.random.default_rng(0), weighted_positions(self._train)
        left_out = np.zeros((REMOVALS_OF_FEW, len(self._train)))
        for row in left_out:
            row[rng.choice(positions, max(1, round(SHARE * len(positions))), replace=False)] = 1.0
        return left_out

    def effects(self, queries: Examples, predicted: Array) -> Effects:
        """The effects of as many removals on these queries as a verdict takes; none if the steps cannot be repeated.

        The recorded net stands for the repeated one as long as the scores predict all that differs from it.

        Args:
            queries: the queries.
            predicted: the sums of their scores over the examples of each removal, (m, removals).
        """
        measured = repeated = self._model.measure(queries)
        without, removals = list[Array](), REMOVALS_OF_FEW if len(queries) <= MAX_FEW_QUERIES else REMOVALS
        for removal in range(removals):
            trained = self._trained(removal)
            if trained is None:
                return Effects(measured, measured, *np.empty((2, len(queries), 0)))
            without.append(trained.measure(queries))
            effects = _effects(measured, repeated, without, predicted)
            is_enough = effects.actual.size >= MIN_EFFECTS
            if is_enough and effects.agreement >= (SURE_AGREEMENT if removal else SURE_OF_ONE):
                break
            if is_enough and removal and repeated is measured:
                repeated = self._trained(NOTHING).measure(queries)
        return _effects(measured, repeated, without, predicted)

    def _trained(self, removal: int) -> Any:
        """The model that the steps train without the examples of this removal; None if they cannot be repeated."""
        if removal not in self._models:
            weights = np.ones(len(self._train)) if removal == NOTHING else 1.0 - self.left_out[removal]
            self._models[removal] = next(iter(self._steps.retrained(self._model, weights[None])), None)
        return self._models[removal]


def _effects(measured: Array, repeated: Array, without: Sequence[Array], predicted: Array) -> Effects:
    return Effects(measured, repeated, repeated[:, None] - np.stack(without, axis=1), predicted[:, : len(without)])


def not_compared(reason: str) -> dict[str, Any]:
    """Diagnostics of scores that were not compared with repeated trainings, for this reason."""
    return {"removals": 0, "not_compared": reason}


def removal_facts(effects: Effects, consequence: str) -> dict[str, Any]:
    """Diagnostics: how many removals there were and how far they agree, and a warning if they hardly do.

    `consequence`: the sentences that follow where they do not.
    """
    actual, predicted = effects.actual, effects.predicted
    sizes = float(np.linalg.norm(actual)), float(np.linalg.norm(predicted))
    count, drift = actual.shape[1], float(np.linalg.norm(effects.measured - effects.repeated))
    rounding = ROUNDING * float(np.linalg.norm(effects.measured))
    if not actual.size:
        return not_compared("the recorded steps cannot be repeated")
    if max(*sizes, drift * np.sqrt(count)) <= rounding * np.sqrt(count):
        return not_compared("removing 2 % of the examples changes these queries by no more than rounding")
    facts: dict[str, Any] = {"removals": count, "agreement": effects.agreement}
    if drift > rounding and not drift * np.sqrt(count) <= MAX_DRIFT * sizes[0]:
        facts["warnings"] = [_other_end_warning(drift * np.sqrt(count) / (sizes[0] or drift))]
    elif not effects.agreement >= MIN_AGREEMENT:
        ratio = sizes[1] / (sizes[0] or np.inf)
        facts["warnings"] = [f"{_disagreement(count, effects.agreement, ratio)} {consequence}"]
    return facts


def _other_end_warning(drift: float) -> str:
    return (
        "Repeating the recorded steps does not end at the recorded net: the measurements of these queries differ by "
        f"{drift:.2g} times the effects of removing 2 % of the examples. Either the training did something between the "
        "checked steps (another optimiser, an average of weights, skipped steps; record with every=1 to find where), "
        "or it is so rough that rounding changes it. Scores can be wrong in order and sign: do not act on them without "
        "retraining (uw.verify)."
    )


def _disagreement(count: int, agreement: float, ratio: float) -> str:
    return (
        f"Repeating the recorded steps without {count} random sets of examples contradicts these scores: actual and "
        f"predicted effects agree at {agreement:.2f} (1 is perfect, 0 is chance), and the predicted ones are "
        f"{ratio:.2g} times as large."
    )

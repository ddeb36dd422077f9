"""Leave-one-out: train again without each example. The truth, at the price of n trainings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.examples import Examples
from upweight.core.model import Parametric, Retrainable
from upweight.core.scores import Unit
from upweight.core.weights import weighted_positions
from upweight.retraining.engine import run_tasks
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import PROBE_EXAMPLES, Task

Array = NDArray[np.float64]
BLOCK = 256  # retrained models that are measured at a time
DRIFT = 0.05  # share of a typical effect by which training on everything may miss the model
TOGETHER = 64  # training examples that are measured at a time


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut(Attributor):
    """score[q, i] = m_q(model) − m_q(model trained without i), by really training (EFFECT by definition).

    Args:
        processes: trainings at a time, each in its own process; 1 stays in this one.
        seed: handed to the training.
    """

    summary = "Train again without each example: the truth, at the price of n trainings"
    cost = "n trainings, and n parameter vectors (of trees: n models) in memory"
    unit = Unit.EFFECT
    needs = (Retrainable,)

    processes: int = 1
    seed: int = 0

    @property
    def promises(self) -> Promises:
        """The truth, up to the tolerance of the training."""
        return Promises(correlation=0.9999, slope=(0.999, 1.001))

    def fit(self, model: Any, train: Examples) -> FittedLeaveOneOut:
        """Train n + 1 times, n the examples of weight above 0."""
        counted = weighted_positions(train)
        tasks = [Task(seed=self.seed), *(Task(removed=np.array([i]), seed=self.seed) for i in counted)]
        whole, *trained = run_tasks(Retraining(processes=self.processes), model, train, tasks, None)
        without = [whole] * len(train)  # training without an example of weight 0 is training on everything
        for place, result in zip(counted.tolist(), trained, strict=True):
            without[place] = result
        return FittedLeaveOneOut(self, model, train, whole, without)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedLeaveOneOut:
        """The retrained parameters from disk; a model that is no vector is trained again."""
        if "parameters" not in state:
            return self.fit(model, train)
        return FittedLeaveOneOut(self, model, train, state["whole"], state["parameters"])


class FittedLeaveOneOut(Fitted[LeaveOneOut, Any]):
    """n trained models, ready to be measured: as parameter vectors where they are `Parametric`."""

    def __init__(self, recipe: LeaveOneOut, handed_in: Any, train: Examples, whole: Any, without: Any):
        super().__init__(recipe, _model(handed_in, whole), train, Unit.EFFECT, handed_in)
        self.whole, self.without = whole, without  # without[i] was trained without example i

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """The measurement with all examples minus the measurement without one."""
        measured = self.model.measure(queries)
        for start in range(0, len(self.train), BLOCK):
            where = slice(start, min(start + BLOCK, len(self.train)))
            without = [_model(self.handed_in, found).measure(queries) for found in self.without[where]]
            yield where, measured[:, None] - np.stack(without, axis=1)

    def self_values(self) -> Array:
        """Each training example's own measurement with it minus without it (memorisation, Feldman 2020)."""
        with_it = self.model.measure(self.train)
        without = np.empty(len(self.train))
        for start in range(0, len(self.train), TOGETHER):  # what comes before the model is run once for so many
            some = self.train.take(np.arange(start, min(start + TOGETHER, len(self.train))))
            for place in range(len(some)):
                found = _model(self.handed_in, self.without[start + place])
                without[start + place] = found.measure(some)[place]
        return np.asarray(with_it - without)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How many trainings the answer cost, and whether it is of the model handed in."""
        trainings = len(weighted_positions(self.train)) + 1
        return {"trainings": trainings, "warnings": [*self.model.notes, *self._elsewhere]}

    @cached_property
    def _elsewhere(self) -> list[str]:
        """Said where training on everything gives another model than the one handed in, which was no optimum either."""
        if cast(Retrainable, self.handed_in).converges:
            return []
        probed = weighted_positions(self.train)[:PROBE_EXAMPLES]
        few = self.train.take(probed)
        here = self.model.measure(few)
        off = float(np.abs(here - self.handed_in.measure(few)).max())
        without = (_model(self.handed_in, self.without[place]) for place in probed)
        effects = [np.abs(here - one.measure(few)).max() for one in without]
        if off <= DRIFT * float(np.median(effects)):
            return []
        return [
            f"Training on everything does not give the model handed in (measurements differ by up to {off:.2g}): these "
            "are effects on the model that training gives. Check its seed, and for a net where it begins (initial)."
        ]

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """All retrained parameters; models that are no vectors have no safe form on disk."""
        if not isinstance(self.handed_in, Parametric):
            return {}, {}
        return {"parameters": np.asarray(self.without), "whole": np.asarray(self.whole)}, {}


def _model(handed_in: Any, found: Any) -> Any:
    return handed_in.with_parameters(found) if isinstance(handed_in, Parametric) else found

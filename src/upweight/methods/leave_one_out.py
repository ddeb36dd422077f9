"""Leave-one-out: retrain without each example. This is the truth, at the price of n trainings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import blocks
from upweight.core.examples import Examples
from upweight.core.model import Parametric, Retrainable
from upweight.core.scores import Unit
from upweight.core.weights import weighted_positions
from upweight.retraining.engine import run_tasks
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import PROBE_EXAMPLES, Task

Array = NDArray[np.float64]
MODEL_BLOCK = 256  # retrained models whose measurements are held in memory at once
MEASURED_BLOCK = 64  # training examples that are measured at once, each by its own model
MAX_DRIFT = 0.05  # share of a typical effect by which retraining on everything may miss the model without a warning


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut(Attributor):
    """score[q, i] = m_q(model) − m_q(model trained without i), by retraining. EFFECT by definition.

    Args:
        processes: how many trainings run at once, each in a separate process; 1 trains in this process.
        seed: passed to the training.
    """

    summary = "Retrain without each example: the truth, at the price of n trainings"
    cost = "n trainings, and n parameter vectors (for trees: n models) in memory"
    unit = Unit.EFFECT
    needs = (Retrainable,)

    processes: int = 1
    seed: int = 0

    @property
    def promises(self) -> Promises:
        """The truth, up to the tolerance of the training."""
        return Promises(correlation=0.9999, slope=(0.999, 1.001))

    def fit(self, model: Any, train: Examples) -> FittedLeaveOneOut:
        """Train once on everything, and once without each of the n examples of weight above 0."""
        counted = weighted_positions(train)
        tasks = [Task(seed=self.seed), *(Task(removed=np.array([i]), seed=self.seed) for i in counted)]
        whole, *trained = run_tasks(Retraining(processes=self.processes), model, train, tasks, None)
        without = [whole] * len(train)  # training without an example of weight 0 is training on everything
        for position, result in zip(counted.tolist(), trained, strict=True):
            without[position] = result
        return FittedLeaveOneOut(self, model, train, whole, without)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedLeaveOneOut:
        """Take the retrained parameters from the saved state; a model that is not `Parametric` is retrained."""
        if "parameters" not in state:
            return self.fit(model, train)
        return FittedLeaveOneOut(self, model, train, state["whole"], state["parameters"])


class FittedLeaveOneOut(Fitted[LeaveOneOut, Any]):
    """n retrained models, ready to be measured; as parameter vectors if they are `Parametric`.

    Attributes:
        whole: trained on everything.
        without: without[i] was trained without example i.
        model_block: retrained models whose measurements are held in memory at once.
    """

    def __init__(self, recipe: LeaveOneOut, handed_in: Any, train: Examples, whole: Any, without: Any):
        super().__init__(recipe, _as_model(handed_in, whole), train, Unit.EFFECT, handed_in)
        self.whole, self.without = whole, without
        self.model_block = MODEL_BLOCK

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """The measurement with all examples minus the measurement without one."""
        with_all = self.model.measure(queries)
        for block in blocks(len(self.train), self.model_block):
            without = [_as_model(self.handed_in, retrained).measure(queries) for retrained in self.without[block]]
            yield block, with_all[:, None] - np.stack(without, axis=1)

    def self_values(self) -> Array:
        """The measurement of each training example with it minus without it (memorisation, Feldman 2020)."""
        with_all = self.model.measure(self.train)
        without = np.empty(len(self.train))
        for block in blocks(len(self.train), MEASURED_BLOCK):  # so that a pipeline transforms each block once
            examples = self.train.take(np.arange(block.start, block.stop))
            for within, position in enumerate(range(block.start, block.stop)):
                without[position] = _as_model(self.handed_in, self.without[position]).measure(examples)[within]
        return np.asarray(with_all - without)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How many trainings the answer cost, and whether retraining reproduces the model handed in."""
        trainings = len(weighted_positions(self.train)) + 1
        return {"trainings": trainings, "warnings": [*self.model.notes, *self._drift_warnings]}

    @cached_property
    def _drift_warnings(self) -> list[str]:
        """A warning if retraining on everything gives another model; none for a training that converges."""
        if cast(Retrainable, self.handed_in).converges:
            return []
        probed = weighted_positions(self.train)[:PROBE_EXAMPLES]
        examples = self.train.take(probed)
        with_all = self.model.measure(examples)
        drift = float(np.abs(with_all - self.handed_in.measure(examples)).max())
        without = (_as_model(self.handed_in, self.without[position]) for position in probed)
        effects = [np.abs(with_all - model.measure(examples)).max() for model in without]
        if drift <= MAX_DRIFT * float(np.median(effects)):
            return []
        return [
            f"Training on everything does not give the model handed in (measurements differ by up to {drift:.2g}): the "
            "scores are effects on the model that training gives. Check its seed, and the initial state of a net."
        ]

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """All retrained parameters; nothing for models that are not `Parametric`, which have no safe form on disk."""
        if not isinstance(self.handed_in, Parametric):
            return {}, {}
        return {"parameters": np.asarray(self.without), "whole": np.asarray(self.whole)}, {}


def _as_model(handed_in: Any, retrained: Any) -> Any:
    """The retrained model, made from its parameters if only these are stored."""
    return handed_in.with_parameters(retrained) if isinstance(handed_in, Parametric) else retrained

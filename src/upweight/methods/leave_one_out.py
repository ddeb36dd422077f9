"""Leave-one-out: train again without each example. The truth, at the price of n trainings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.examples import Examples
from upweight.core.model import Retrainable, require
from upweight.core.retraining import Job, Task, at_once, by_processes, trained
from upweight.core.scores import Unit

Array = NDArray[np.float64]
BLOCK = 256  # retrained models that are measured at a time


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut(Attributor):
    """score[q, i] = m_q(model) − m_q(model trained without i), by really training (EFFECT by definition).

    Args:
        processes: trainings at a time, each in its own process; 1 stays in this one.
        seed: handed to the training.

    Cost: n trainings, and n parameter vectors in memory.
    """

    processes: int = 1
    seed: int = 0

    @property
    def promises(self) -> Promises:
        """The truth, up to the tolerance of the training."""
        return Promises(correlation=0.9999, slope=(0.999, 1.001))

    def fit(self, model: Any, train: Examples) -> FittedLeaveOneOut:
        """Train n + 1 times."""
        require(model, [Retrainable], "LeaveOneOut")
        size = at_once(model, train).size
        tasks = [Task(seed=self.seed), *(Task(removed=np.array([i]), seed=self.seed) for i in range(len(train)))]
        found: dict[int, Array] = dict(
            trained(Job(model, train, None, size > 1), tasks, size, by_processes(self.processes))
        )
        parameters = np.stack([found[place] for place in range(1, len(tasks))])
        return FittedLeaveOneOut(self, model.with_parameters(found[0]), model, train, parameters)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedLeaveOneOut:
        """The retrained parameters from disk."""
        return FittedLeaveOneOut(self, model.with_parameters(state["whole"]), model, train, state["parameters"])


class FittedLeaveOneOut(Fitted):
    """n trained models, ready to be measured."""

    def __init__(self, recipe: LeaveOneOut, model: Any, handed_in: Any, train: Examples, parameters: Array) -> None:
        super().__init__(recipe, model, train, Unit.EFFECT, handed_in)
        self.parameters = parameters  # (n, parameters), row i trained without example i

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """The measurement with all examples minus the measurement without one."""
        measured = self.model.measure(queries)
        for start in range(0, len(self.train), BLOCK):
            where = slice(start, min(start + BLOCK, len(self.train)))
            without = [self._at(row).measure(queries) for row in self.parameters[where]]
            yield where, measured[:, None] - np.stack(without, axis=1)

    def self_values(self) -> Array:
        """Each training example's own measurement with it minus without it (memorisation, Feldman 2020)."""
        with_it = self.model.measure(self.train)
        without = [self._at(row).measure(self.train.take([i]))[0] for i, row in enumerate(self.parameters)]
        return np.asarray(with_it - np.array(without))

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How many trainings the answer cost."""
        return {"trainings": len(self.parameters) + 1, "warnings": list(getattr(self.model, "notes", ()))}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """All retrained parameters."""
        return {"parameters": self.parameters, "whole": cast(Retrainable, self.model).parameters}, {}

    def _at(self, parameters: Array) -> Retrainable:
        return cast(Retrainable, self.model).with_parameters(parameters)

"""Leave-one-out: retrain without each example. This is the truth, at the price of n trainings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import stored_array
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import blocks
from upweight.core.exact_removals import ExactRemovals
from upweight.core.examples import Examples
from upweight.core.forecast import counted
from upweight.core.model import Parametric, Retrainable
from upweight.core.scores import Unit
from upweight.core.weights import weighted_positions
from upweight.methods.parts.exact_removal import FittedExactRemoval
from upweight.methods.parts.refused_removals import refusal_warnings
from upweight.retraining.engine import try_tasks
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import PROBE_EXAMPLES, Task

Array = NDArray[np.float64]
MODEL_BLOCK = 256  # retrained models whose measurements are held in memory at once
MEASURED_BLOCK = 64  # training examples that are measured at once, each by its own model
MAX_DRIFT = 0.05  # largest distance of the retrained from the given model without a warning, in typical effects


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut(Attributor):
    """score[q, i] = m_q(model) − m_q(model trained without i), by retraining. EFFECT by definition.

    A model that its training examples determine in closed form (naive Bayes, discriminant analysis, nearest
    neighbours, …) is recomputed without each example, which gives the same scores without any training.

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

    def fit(self, model: Any, train: Examples) -> FittedLeaveOneOut | FittedExactRemoval:
        """Train once on everything, and once without each of the n examples of weight above 0.

        An example that the model refuses to be trained without, such as the only one of a class, has the score NaN.

        Raises ValueError if the model cannot be trained on everything, or without any of the examples.
        """
        if isinstance(model, ExactRemovals):
            return FittedExactRemoval(self, model, train)
        counted, retraining = weighted_positions(train), Retraining(processes=self.processes)
        is_alone = _is_only_of_its_class(train, counted)
        tasks = [Task(seed=self.seed), *(Task(removed=np.array([i]), seed=self.seed) for i in counted[~is_alone])]
        whole, *trained = try_tasks(retraining, model, train, tasks, None)
        # Most models refuse these. They are tried one by one, because a refused training stops those that run with it.
        lone = [
            try_tasks(retraining, model, train, [Task(removed=np.array([i]), seed=self.seed)], None)[0]
            for i in counted[is_alone]
        ]
        if isinstance(whole, str):
            raise ValueError(whole)
        without = [whole] * len(train)  # training without an example of weight 0 is training on everything
        refused = {}
        for position, result in zip([*counted[~is_alone], *counted[is_alone]], [*trained, *lone], strict=True):
            if isinstance(result, str):
                refused[int(position)] = result
            without[position] = None if isinstance(result, str) else result
        if len(refused) == len(counted):
            raise ValueError(f"the model cannot be trained without any of the examples: {next(iter(refused.values()))}")
        return FittedLeaveOneOut(self, model, train, whole, without, refused)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedLeaveOneOut | FittedExactRemoval:
        """Take the retrained parameters from the saved state; a model that is not `Parametric` is retrained."""
        if "parameters" not in state:
            return self.fit(model, train)
        refused = {int(position): str(why) for position, why in facts.get("refused", {}).items()}
        whole = stored_array(state, "whole", (None,))
        parameters = stored_array(state, "parameters", (len(train), len(whole)), finite=False)
        without = [None if i in refused else row for i, row in enumerate(parameters)] if refused else None
        return FittedLeaveOneOut(self, model, train, whole, without or parameters, refused)


class FittedLeaveOneOut(Fitted[LeaveOneOut, Any]):
    """n retrained models, ready to be measured; as parameter vectors if they are `Parametric`.

    Attributes:
        whole: trained on everything.
        without: without[i] was trained without example i; None if the model cannot be trained without it.
        refused: position of such an example → why.
        model_block: retrained models whose measurements are held in memory at once.
    """

    def __init__(
        self,
        recipe: LeaveOneOut,
        original_model: Any,
        train: Examples,
        whole: Any,
        without: Any,
        refused: Mapping[int, str] | None = None,
    ):
        super().__init__(recipe, _as_model(original_model, whole), train, Unit.EFFECT, original_model)
        self.whole, self.without, self.refused = whole, without, dict(refused or {})
        self.model_block = MODEL_BLOCK

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """The measurement with all examples minus the measurement without one."""
        with_all = self.model.measure(queries)
        for block in blocks(len(self.train), self.model_block):
            positions = counted(range(block.start, block.stop), block.stop - block.start)
            without = [self._measured_without(position, queries) for position in positions]
            yield block, with_all[:, None] - np.stack(without, axis=1)

    def self_values(self) -> Array:
        """The measurement of each training example with it minus without it (memorisation, Feldman 2020)."""
        with_all = self.model.measure(self.train)
        without = np.empty(len(self.train))
        for block in blocks(len(self.train), MEASURED_BLOCK):  # so that a pipeline transforms each block once
            examples = self.train.take(np.arange(block.start, block.stop))
            for within, position in enumerate(range(block.start, block.stop)):
                without[position] = self._measured_without(position, examples)[within]
        return np.asarray(with_all - without)

    def _measured_without(self, position: int, examples: Examples) -> Array:
        """The measurements of the model trained without this example; NaN if it cannot be trained without it."""
        if position in self.refused:
            return np.full(len(examples), np.nan)
        measurements: Array = _as_model(self.original_model, self.without[position]).measure(examples)
        return measurements

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How many trainings the answer cost, and whether retraining reproduces the given model."""
        trainings = len(weighted_positions(self.train)) + 1
        undefined = {"undefined": self.train.ids[list(self.refused)].tolist()} if self.refused else {}
        warnings = [*self.model.notes, *self._drift_warnings, *refusal_warnings(self.train, self.refused)]
        return {"trainings": trainings - len(self.refused), **undefined, "warnings": warnings}

    @cached_property
    def _drift_warnings(self) -> list[str]:
        """A warning if retraining on everything gives another model; none for a training that converges."""
        if cast(Retrainable, self.original_model).converges:
            return []
        probed = [i for i in weighted_positions(self.train).tolist() if i not in self.refused][:PROBE_EXAMPLES]
        examples = self.train.take(probed)
        with_all = self.model.measure(examples)
        drift = float(np.abs(with_all - self.original_model.measure(examples)).max())
        without = (_as_model(self.original_model, self.without[position]) for position in probed)
        effects = [np.abs(with_all - model.measure(examples)).max() for model in without]
        if drift <= MAX_DRIFT * float(np.median(effects)):
            return []
        return [
            f"Training on everything does not give the given model (measurements differ by up to {drift:.2g}): "
            "the scores are effects on the model that training gives. Check its seed, and the initial state of a net."
        ]

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """All retrained parameters; nothing for models that are not `Parametric`, which have no safe form on disk."""
        if not isinstance(self.original_model, Parametric):
            return {}, {}
        nothing = np.full_like(self.whole, np.nan)
        without = [nothing if i in self.refused else row for i, row in enumerate(self.without)]
        facts = {"refused": {str(position): why for position, why in self.refused.items()}} if self.refused else {}
        return {"parameters": np.asarray(without), "whole": np.asarray(self.whole)}, facts


def _is_only_of_its_class(train: Examples, positions: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which of these examples are the only ones of their class, (positions,)."""
    if train.y is None or train.y.ndim != 1 or train.y.dtype.kind == "f":
        return np.zeros(len(positions), dtype=bool)
    _, class_of, counts = np.unique(train.y[positions], return_inverse=True, return_counts=True)
    return np.asarray(counts[class_of] == 1)


def _as_model(original_model: Any, retrained: Any) -> Any:
    """The retrained model, made from its parameters if only these are stored."""
    return original_model.with_trained_state(retrained) if isinstance(original_model, Parametric) else retrained

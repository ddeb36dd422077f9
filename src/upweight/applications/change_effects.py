"""Actual effects of changes to a training set, by retraining."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.applications.changes import Change
from upweight.core.examples import Examples
from upweight.core.model import Predictions
from upweight.retraining.engine import run_tasks
from upweight.retraining.retrained_outputs import RetrainedOutputs
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import Task

Array = NDArray[np.float64]


class ChangeEffects(NamedTuple):
    """Actual effects of changes: of each change, and of random changes of the same kind and size.

    Attributes:
        before: predictions without a change.
        after: predictions with each change.
        actual: (queries, changes), the measurement with the change minus without.
        random: per change, the actual effects of its random changes, (queries, random changes).
    """

    before: Predictions
    after: tuple[Predictions, ...]
    actual: Array
    random: tuple[Array, ...]

    @classmethod
    def of(
        cls,
        retraining: Retraining,
        model: Any,
        train: Examples,
        queries: Examples,
        changes: Sequence[Change],
        random_changes: Sequence[Sequence[Change]],
    ) -> ChangeEffects:
        """Retrain with each change, and with the random changes drawn for it."""
        seed, answers = retraining.only_seed("what_if"), RetrainedOutputs.of(model, queries)
        tasks = [Task(seed=seed), *(Task(change=change, seed=seed) for change in (*changes, *chain(*random_changes)))]
        base, *others = map(answers.read, run_tasks(retraining, model, train, tasks, queries, answers))
        effects = np.stack([measurements - base[0] for measurements, _ in others], axis=1)
        ends = np.cumsum([len(changes), *map(len, random_changes)])
        actual, *random = np.split(effects, ends[:-1], axis=1)
        return cls(base[1], tuple(predictions for _, predictions in others[: len(changes)]), actual, tuple(random))

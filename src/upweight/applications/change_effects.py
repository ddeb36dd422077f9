"""Effects of changes to a training set, by real training."""

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
    """What training says: once without a change, with each, and with random ones like each.

    Attributes:
        before: predictions without a change.
        after: predictions with each change.
        actual: (queries, changes), the measurement with the change minus without.
        random: the same of the random changes like each change, (queries, random changes).
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
        like: Sequence[Sequence[Change]],
    ) -> ChangeEffects:
        """Train with each of `changes`, and with random ones `like` each."""
        seed, answers = retraining.only_seed("what_if"), RetrainedOutputs.of(model, queries)
        tasks = [Task(seed=seed), *(Task(change=change, seed=seed) for change in (*changes, *chain(*like)))]
        base, *others = map(answers.read, run_tasks(retraining, model, train, tasks, queries, answers))
        effects = np.stack([measurements - base[0] for measurements, _ in others], axis=1)
        ends = np.cumsum([len(changes), *map(len, like)])
        actual, *random = np.split(effects, ends[:-1], axis=1)
        return cls(base[1], tuple(predictions for _, predictions in others[: len(changes)]), actual, tuple(random))

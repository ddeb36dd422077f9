"""Retrainings that leave out random examples: metagradients are compared with them before scores are used."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.retraining.engine import run_tasks
from upweight.retraining.retraining import IN_THIS_PROCESS
from upweight.retraining.task import Task

Array = NDArray[np.float64]


class RetrainedRemovals:
    """Models retrained without random sets of examples.

    Args:
        model: the model to retrain; all retrainings have the same initial parameters, order and dropout.
        train: its training set.
        removals: weights (removals, n), 0 for examples that are left out.
        seeds: the number of runs whose mean is the effect.
        full: the parameters after training on everything.
    """

    def __init__(self, model: Any, train: Examples, removals: Array, seeds: int, full: Array) -> None:
        self.removals = removals
        weights = np.vstack([np.ones((1, len(train))), removals])
        self._models = [_retrain(model, train, weights, seed) for seed in range(seeds)]
        self.metasmoothness = self._metasmoothness(model, train, full)

    def __len__(self) -> int:
        return len(self.removals)

    @property
    def trainings(self) -> int:
        """The number of trainings: on everything and without each removal per seed, and one for the metasmoothness."""
        return len(self._models) * (len(self.removals) + 1) + 1

    def effects(self, queries: Examples, values: Array) -> tuple[Array, Array]:
        """(effects of the removals on these queries, effects that the scores (m, n) predict), both (m, removals)."""
        measured = np.stack([[model.measure(queries) for model in models] for models in self._models])
        actual = (measured[:, :1] - measured[:, 1:]).mean(axis=0).T  # with everything minus without the removal
        return actual, values @ (1.0 - self.removals).T

    def _metasmoothness(self, model: Any, train: Examples, full: Array) -> float:
        """Metasmoothness: whether parameters keep their direction as the weight of a removal goes from 1 to ½ to 0.

        It is the sign agreement of the two finite differences, weighted by the whole movement (2503.13751, §4).
        """
        half = _retrain(model, train, (1.0 + self.removals[:1]) / 2, 0)[0].parameters
        none = self._models[0][1].parameters
        movement = np.abs(none - full)
        agrees = np.sign(half - full) * np.sign(none - half)
        return float((movement * agrees).sum()) / max(float(movement.sum()), 1e-300)


def within_query_agreement(actual: Array, predicted: Array) -> tuple[float, float]:
    """(mean over queries of Pearson's correlation of effects (m, removals), slope of actual on predicted)."""
    actual, predicted = (a - a.mean(axis=1, keepdims=True) for a in (actual, predicted))
    cross, sizes = (actual * predicted).sum(axis=1), np.linalg.norm(actual, axis=1) * np.linalg.norm(predicted, axis=1)
    moves = sizes > 0
    correlation = float((cross[moves] / sizes[moves]).mean()) if moves.any() else 0.0
    return correlation, float(cross.sum()) / max(float((predicted**2).sum()), 1e-300)


def _retrain(model: Any, train: Examples, weights: Array, seed: int) -> list[Any]:
    tasks = [Task(weights=row, seed=seed) for row in weights]
    return [model.with_trained_state(state) for state in run_tasks(IN_THIS_PROCESS, model, train, tasks, None)]

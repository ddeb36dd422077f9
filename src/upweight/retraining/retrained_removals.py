"""RetrainedRemovals: real retrainings that metagradients are held against before anyone reads them."""

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
    """Random removals that were really retrained.

    Args:
        model: whose training is made again; all with the same start, order and dropout.
        train: its training set.
        removals: weights (removals, n), 0 where an example is left out.
        seeds: runs whose mean is the effect.
        full: the parameters trained with everything.
    """

    def __init__(self, model: Any, train: Examples, removals: Array, seeds: int, full: Array) -> None:
        self.removals = removals
        weights = np.vstack([np.ones((1, len(train))), removals])
        self._retrained = [_retrained(model, train, weights, seed) for seed in range(seeds)]
        self.metasmoothness = self._metasmoothness(model, train, full)

    def __len__(self) -> int:
        return len(self.removals)

    @property
    def trainings(self) -> int:
        """How many were done: on everything and without each removal, once per seed, and half without the first."""
        return len(self._retrained) * (len(self.removals) + 1) + 1

    def effects(self, queries: Examples, values: Array) -> tuple[Array, Array]:
        """(actual effects of the removals on these queries, those that scores (m, n) predict), both (m, removals)."""
        measured = np.stack([[one.measure(queries) for one in models] for models in self._retrained])
        actual = (measured[:, :1] - measured[:, 1:]).mean(axis=0).T  # with everything minus without
        return actual, values @ (1.0 - self.removals).T

    def _metasmoothness(self, model: Any, train: Examples, full: Array) -> float:
        """Metasmoothness: whether parameters move on the way they began, from all to half to none of a removal.

        Sign agreement of the two halves' finite differences, weighted by the whole movement (2503.13751, §4).
        """
        half = _retrained(model, train, (1.0 + self.removals[:1]) / 2, 0)[0].parameters
        none = self._retrained[0][1].parameters
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


def _retrained(model: Any, train: Examples, weights: Array, seed: int) -> list[Any]:
    tasks = [Task(weights=row, seed=seed) for row in weights]
    return [model.with_parameters(parameters) for parameters in run_tasks(IN_THIS_PROCESS, model, train, tasks, None)]

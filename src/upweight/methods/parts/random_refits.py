"""Models refitted with random example weights, and their measurements as a linear function of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts, Blocks
from upweight.core.attributor import Fitted, RecipeT
from upweight.core.examples import Examples
from upweight.core.forecast import counted
from upweight.core.identity import checksum
from upweight.core.scores import Unit
from upweight.core.weights import weighted_positions
from upweight.methods.parts.refit_intervals import t_quantile
from upweight.retraining.engine import try_tasks
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import Task

Array = NDArray[np.float64]
MAX_REDRAWS = 20  # times that weights are drawn again if a model cannot be trained with them
REFITS_PER_EXAMPLE = 2  # from this many refits per example on, all examples are regressed on together


@dataclass(frozen=True, eq=False)
class RandomRefits:
    """Models trained with random weights.

    Attributes:
        models: one model per training.
        weights: their example weights, (refits, n).
        positions: the examples whose weights vary.
        redrawn: how many draws could not be trained on, and were replaced.
    """

    models: Sequence[Any]
    weights: Array
    positions: NDArray[np.intp]
    redrawn: int

    def effects(self, measured: Array) -> tuple[Array, Array]:
        """(effects of a unit of weight, half widths of their 90 % intervals), both (m, n); measured is (refits, m)."""
        varied = self.weights[:, self.positions]
        estimates, errors, degrees = (_joint if self.is_joint else one_by_one)(varied, measured)
        effects, half_widths = np.zeros((2, measured.shape[1], self.weights.shape[1]))
        effects[:, self.positions] = estimates
        half_widths[:, self.positions] = t_quantile(degrees) * errors
        return effects, half_widths

    @property
    def is_joint(self) -> bool:
        """Whether there are enough refits to regress on all examples together."""
        return len(self.weights) >= REFITS_PER_EXAMPLE * (len(self.positions) + 1)


def random_refits(
    model: Any,
    train: Examples,
    refits: int,
    draw: Callable[[np.random.Generator, int], Array],
    seed: int,
    processes: Any,
) -> RandomRefits:
    """Train with random weights; every training has a seed of its own.

    `draw(generator, count)` gives the weights of one example in `count` trainings. They follow from the example's id,
    so that the order of examples does not matter.

    Raises ValueError if the model cannot be trained with most draws.
    """
    positions = weighted_positions(train)
    weights, models = np.ones((refits, len(train))), list[Any]([None] * refits)
    remaining, redrawn, why = np.arange(refits), 0, ""
    for attempt in range(MAX_REDRAWS):
        for position in positions.tolist():
            generator = np.random.default_rng([seed, attempt, checksum(train.ids[position].item())])
            weights[remaining, position] = draw(generator, refits)[remaining]
        tasks = [Task(weights=weights[row], seed=int(row)) for row in remaining]
        results = try_tasks(Retraining(processes=processes), model, train, tasks, None)
        for row, result in zip(remaining.tolist(), results, strict=True):
            models[row] = result
        refused = [row for row in remaining.tolist() if isinstance(models[row], str)]
        if not refused:
            return RandomRefits(models, weights, positions, redrawn)
        why, redrawn, remaining = models[refused[0]], redrawn + len(refused), np.array(refused)
    raise ValueError(f"the model cannot be trained on most of the random subsets: {why}")


def _joint(weights: Array, measured: Array) -> tuple[Array, Array, float]:
    """Least squares on all weights at once: (coefficients (m, n), standard errors, degrees of freedom).

    The errors are those of MacKinnon & White (1985), HC3, which hold whatever the variance of a measurement depends on.
    """
    design = np.column_stack([np.ones(len(weights)), weights])
    inverse = np.linalg.pinv(design.T @ design)
    coefficients = inverse @ design.T @ measured
    leverages = np.einsum("bi,ij,bj->b", design, inverse, design)
    residuals = (measured - design @ coefficients) / np.maximum(1.0 - leverages, 1e-9)[:, None]
    projection = design @ inverse  # (refits, n + 1)
    variances = (projection**2).T @ residuals**2
    return coefficients[1:].T, np.sqrt(variances[1:]).T, len(weights) - design.shape[1]


def one_by_one(weights: Array, measured: Array) -> tuple[Array, Array, float]:
    """The slope on each weight alone: (slopes (m, n), standard errors, degrees of freedom).

    If weights are independent, other examples disturb it but do not bias it. For weights of 0 and 1 it is the
    difference of two means.
    """
    centred, outputs = weights - weights.mean(axis=0), measured - measured.mean(axis=0)
    squares = np.maximum((centred**2).sum(axis=0), 1e-300)
    slopes = (outputs.T @ centred) / squares
    count = len(weights)
    # The residuals differ for every example; their HC3 variance, without an array of refits × m × n at once.
    leverages = 1.0 / count + centred**2 / squares
    scaled = centred**2 / np.maximum(1.0 - leverages, 1e-9) ** 2
    variances = np.empty_like(slopes)
    for query in range(len(slopes)):
        residuals = outputs[:, query, None] - centred * slopes[query]
        variances[query] = (scaled * residuals**2).sum(axis=0) / squares**2
    return slopes, np.sqrt(variances), count - 2


class FittedRandomRefits(Fitted[RecipeT, Any]):
    """Models trained on random subsets or weights, ready to be measured. Subclasses say in `diagnostics` which."""

    def __init__(self, recipe: RecipeT, model: Any, train: Examples, unit: Unit, trained: RandomRefits) -> None:
        super().__init__(recipe, model, train, unit)
        self.trained = trained
        self._self_half_widths: Array | None = None

    def blocks(self, queries: Examples) -> Blocks:
        """One block of all training examples, with intervals."""
        measured = self._measured(queries)
        values, half_widths = self.trained.effects(measured)
        yield slice(0, len(self.train)), values
        return AnswerFacts(half_widths=half_widths)

    def self_values(self) -> Array:
        """The score of each training example on itself."""
        measured = self._measured(self.train)
        values, half_widths = self.trained.effects(measured)
        self._self_half_widths = np.diagonal(half_widths)[None].copy()
        return np.diagonal(values).copy()

    def _measured(self, queries: Examples) -> Array:
        """The measurements of all models, (refits, m)."""
        models = self.trained.models
        return np.stack([model.measure(queries) for model in counted(models, len(models))])

    def self_facts(self) -> AnswerFacts:
        """Intervals of the self-influence that was computed last."""
        return AnswerFacts(half_widths=self._self_half_widths)

"""Data Shapley: the mean effect of each example when examples join the training set in random orders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts, Blocks
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import require_count
from upweight.core.examples import Examples
from upweight.core.forecast import counted
from upweight.core.identity import checksum
from upweight.core.laws import Law
from upweight.core.refittable import Refittable
from upweight.core.scores import Unit
from upweight.core.weights import weighted_positions
from upweight.methods.parts.refit_intervals import pooled_half_widths
from upweight.retraining.engine import try_tasks
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import Task

Array = NDArray[np.float64]
DEFAULT_ORDERS = 8  # random orders at most, if no budget is given
FIRST_ORDERS = 4  # random orders before the first look at the intervals; the next looks are at twice as many


@dataclass(frozen=True, kw_only=True)
class DataShapley(Attributor):
    """score[q, i] = mean of m_q(S ∪ {i}) − m_q(S), S the examples before i in a random order. 90 % intervals. RANK.

    This is the Shapley value of Ghorbani & Zou (2019), by permutations and without truncation. The scores of a query
    sum to its measurement on the model trained on everything minus that without examples: equal shares of the classes,
    or the mean target. A part of the training set that the model cannot be trained on predicts the shares of its
    classes. Random orders are drawn until the widest interval, for the mean measurement of the training examples, is
    within `tolerance`. The intervals are looked at after 4, 8, 16, … orders, because a rule that looks at every order
    stops too early.

    Args:
        refits: the most trainings; one order costs n. None stands for 8 orders.
        tolerance: a half width, as a share of what the whole training set gains over predictions without examples.
        seed: of the orders. Every order trains with another seed, so intervals hold the noise of seeds too.
        processes: how many trainings run at once; 1 trains in this process, None uses all processors.
    """

    summary = "Shapley values: the mean effect of each example over random orders, with intervals and a stopping rule"
    paper = "Ghorbani & Zou (2019), 1904.02868"
    cost = "n trainings per random order, up to `refits`, and all trained models in memory"
    unit = Unit.RANK
    needs = (Refittable,)

    refits: int | None = None
    tolerance: float = 0.02
    seed: int = 0
    processes: int | None = 1

    def __post_init__(self) -> None:
        if self.refits is not None:
            require_count("refits", self.refits, least=2)
        if not self.tolerance >= 0.0:
            raise ValueError(f"expected a tolerance ≥ 0, got {self.tolerance!r}")

    @property
    def promises(self) -> Promises:
        """No floor against leave-one-out: the effect on a part of the training set is another number."""
        waives = {
            Law.WEIGHTS: "copies of an example join the training set one by one",
        }
        return Promises(no_floor="the mean effect on parts is not the effect on the whole set", waives=waives)

    def fit(self, model: Any, train: Examples) -> FittedDataShapley:
        """Train along random orders until the intervals are narrow enough.

        Raises ValueError if the budget does not reach for two orders.
        """
        players = len(weighted_positions(train))
        most = DEFAULT_ORDERS if self.refits is None else self.refits // players
        if most < 2:
            raise ValueError(
                f"expected refits for at least two random orders of {players:,} examples, {2 * players:,}, got "
                f"{self.refits:,}"
            )
        fitted = FittedDataShapley(self, model, train)
        look_at = min(FIRST_ORDERS, most)
        while True:
            fitted.extend(look_at)
            if look_at == most or fitted.widest <= self.tolerance:
                return fitted
            look_at = min(2 * look_at, most)


class FittedDataShapley(Fitted[DataShapley, Any]):
    """The models along every random order, ready to be measured.

    Attributes:
        orders: the positions of the examples in each order.
        models: for each order the models of its first 1, 2, … examples; None where they cannot be trained on.
    """

    def __init__(self, recipe: DataShapley, model: Any, train: Examples) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.orders: list[NDArray[np.intp]] = []
        self.models: list[list[Any]] = []
        self._self_half_widths: Array | None = None

    def extend(self, count: int) -> None:
        """Train along more random orders, until there are `count`."""
        retraining = Retraining(processes=self.recipe.processes)
        for number in counted(range(len(self.orders), count), count - len(self.orders)):
            order = self._order(number)
            tasks = [Task(weights=self._first(order, size), seed=number) for size in range(1, len(order) + 1)]
            results = try_tasks(retraining, self.model, self.train, tasks, None)
            self.orders.append(order)
            self.models.append([None if isinstance(result, str) else result for result in results])

    @property
    def widest(self) -> float:
        """The widest half width for the mean measurement of the training examples, as a share of the whole gain."""
        contributions = self._contributions(self.train).mean(axis=1, keepdims=True)
        gain = abs(float(contributions.mean(axis=0).sum()))
        return float(pooled_half_widths(contributions).max()) / max(gain, 1e-300)

    def blocks(self, queries: Examples) -> Blocks:
        """One block of all training examples, with intervals."""
        contributions = self._contributions(queries)
        yield slice(0, len(self.train)), contributions.mean(axis=0)
        return AnswerFacts(half_widths=pooled_half_widths(contributions))

    def self_values(self) -> Array:
        """The score of each training example on itself."""
        contributions = self._contributions(self.train)
        self._self_half_widths = np.diagonal(pooled_half_widths(contributions))[None].copy()
        return np.diagonal(contributions.mean(axis=0)).copy()

    def self_facts(self) -> AnswerFacts:
        """Intervals of the self-influence that was computed last."""
        return AnswerFacts(half_widths=self._self_half_widths)

    def _contributions(self, queries: Examples) -> Array:
        """What each example adds to the measurement of each query in each order, (orders, m, n)."""
        contributions = np.zeros((len(self.orders), len(queries), len(self.train)))
        nothing = self.model.measure_uninformed(self.train, np.zeros(len(self.train)), queries)
        orders = zip(contributions, self.orders, self.models, strict=True)
        for added, order, models in counted(orders, len(self.orders)):
            before = nothing
            for size, (position, model) in enumerate(zip(order.tolist(), models, strict=True), 1):
                if model is None:
                    after = self.model.measure_uninformed(self.train, self._first(order, size), queries)
                else:
                    after = model.measure(queries)
                added[:, position], before = after - before, after
        return contributions

    def _order(self, number: int) -> NDArray[np.intp]:
        """A random order of the examples, which follows from their ids."""
        positions = weighted_positions(self.train)
        keys = [
            np.random.default_rng([self.recipe.seed, number, checksum(self.train.ids[position].item())]).random()
            for position in positions.tolist()
        ]
        return np.asarray(positions[np.argsort(keys)])

    def _first(self, order: NDArray[np.intp], size: int) -> Array:
        """Weights of 1 for the first `size` examples of an order, and of 0 for the others."""
        weights = np.zeros(len(self.train))
        weights[order[:size]] = 1.0
        return weights

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How many orders and trainings the fit took, and how wide intervals still are."""
        orders, trainings = len(self.orders), sum(map(len, self.models))
        sentences = [f"Scores come from {trainings:,} refits along {orders:,} random orders."]
        if self.widest > self.recipe.tolerance:
            sentences.append(
                f"The budget ended before intervals were narrow enough: the widest is ±{self.widest:.2g} of what the "
                f"whole training set gains, and the tolerance is {self.recipe.tolerance:g}; pass more refits."
            )
        return {"trainings": trainings, "orders": orders, "warnings": [*self.model.notes, *sentences]}

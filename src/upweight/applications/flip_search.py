"""The search behind `flip_set`: orders of removal by pairwise influence, retrained sizes, and what can be put back."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations, islice
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.applications.contests import Contest, Tested, Threshold
from upweight.core.attributor import Attributor
from upweight.core.examples import Examples
from upweight.core.weights import sample_weights
from upweight.evaluate.removal_search import RemovalSearch
from upweight.linear.model import LinearModel
from upweight.retraining.engine import try_tasks
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import Task, choose_stack, measured

Array = NDArray[np.float64]
MAX_RIVALS = 4  # rivals that are tried by retraining: those predicted to need the fewest removals
MAX_STEPS = 40  # examples of a set that is chosen one by one, with scores of the retrained model
MAX_SCORED = 200_000  # training examples times steps: larger searches do not go one by one
MAX_PUT_BACK = 200  # trainings that ask which examples of a set can be put back
SETS_AT_ONCE = 512  # smaller sets that are retrained at a time


class Removed(NamedTuple):
    """A set that flips the contest.

    Attributes:
        positions: in the training set.
        values: the values without it, by retraining; None if they were not retrained.
        is_smallest: whether no smaller set of candidates flips it, by retraining them all.
    """

    positions: tuple[int, ...]
    values: Array | None
    is_smallest: bool = False


class FlipSearch:
    """The search for the smallest set of candidates without which another value of a contest is the highest.

    Args:
        contest: what is compared.
        trained: the model and its training set.
        positions: of the candidates.
        limit: the largest removal.
        recipe: scores the candidates.
        retraining: where and how.

    Attributes:
        start: the values of the given model.
        values: of the contest with all examples.
        leader: the highest of them.
        effects: each value with a training example minus without it, (V, n).
        nearest: (how many examples were removed, how far the leader was ahead) of the removal that came nearest.
        tried: the largest removal that was tried.
        trainings: how many models were trained.
    """

    def __init__(
        self,
        contest: Contest,
        trained: tuple[Any, Examples],
        positions: NDArray[np.intp],
        limit: int,
        recipe: Attributor,
        retraining: Retraining,
    ) -> None:
        self.contest, (self.model, self.train) = contest, trained
        self.positions, self.limit, self.recipe = positions, limit, recipe
        self.retraining, self.progress = replace(retraining, progress=None), retraining.progress
        self.values = contest.values(self.model, self.train)
        self.start, self.leader = self.values, int(np.argmax(self.values))
        self.effects, self.unit, self.warnings = contest.effects(self.model, self.train, recipe)
        self.nearest: tuple[int, float] | None = None
        self.tried = self.trainings = 0

    def predicted(self, removed: tuple[int, ...] | NDArray[np.intp]) -> Array:
        """The values without these examples, by the sum of effects."""
        return np.asarray(self.start - self.effects[:, list(removed)].sum(axis=1))

    def predict(self) -> Removed | None:
        """The smallest set by the sum of effects; of equal ones, that which puts its rival furthest ahead."""
        best: tuple[int, float, Removed] | None = None
        for rival, order in self._orders():
            gaps = self._gap(self.values, rival) - np.cumsum(self.contributions_to_gap(rival)[order])[: self.limit]
            if len(gaps):
                self._note(int(gaps.argmin()) + 1, float(gaps.min()))
            self.tried = max(self.tried, len(gaps))
            closed = np.flatnonzero(gaps < 0)
            if len(closed):
                size, gap = int(closed[0]) + 1, float(gaps[closed[0]])
                if best is None or (size, gap) < best[:2]:
                    best = size, gap, Removed(tuple(order[:size].tolist()), None)
        return None if best is None else best[2]

    def prove(self, exhaustive: int) -> Removed | None:
        """The smallest set found whose removal flips the contest by retraining."""
        (values,) = self._retrained([np.empty(0, dtype=np.intp)])
        if isinstance(values, str):
            raise ValueError(values)
        self.values = values
        leader = int(np.argmax(self.values))
        if leader != self.leader:
            names = self.contest.names
            self.warnings.append(
                f"Retrained on all examples, the model has {names[leader]} first, the given one {names[self.leader]}: "
                "sets are about the retrained model."
            )
            self.leader = leader
        best = self._by_order()
        best = self._step_by_step(best)
        best = None if best is None else self._without_unneeded(best)
        return self._after_all_smaller_sets(best, exhaustive)

    def _orders(self) -> list[tuple[int, NDArray[np.intp]]]:
        """(rival, candidates that contribute to its gap, most first) for every rival, the easiest first."""
        orders = []
        for rival in range(len(self.values)):
            if rival == self.leader:
                continue
            contributions = self.contributions_to_gap(rival)
            order = self.positions[np.argsort(-contributions[self.positions], kind="stable")]
            order = order[contributions[order] > 0]
            gaps = self._gap(self.values, rival) - np.cumsum(contributions[order])
            closed = np.flatnonzero(gaps < 0)
            remaining = gaps[-1] if len(gaps) else self._gap(self.values, rival)
            orders.append(((closed[0] if len(closed) else np.inf, remaining), rival, order))
        return [(rival, order) for _, rival, order in sorted(orders, key=lambda entry: entry[:2])]

    def contributions_to_gap(self, rival: int) -> Array:
        """How much each training example adds to the gap between leader and rival, (n,)."""
        return np.asarray(self.effects[self.leader] - self.effects[rival])

    def _gap(self, values: Array, rival: int) -> float:
        return float(values[self.leader] - values[rival])

    def _lead(self, values: Array) -> float:
        """How far the leader is ahead of the best of all others; negative if it is not."""
        return float(values[self.leader] - np.delete(values, self.leader).max())

    def _note(self, size: int, lead: float) -> None:
        if self.nearest is None or lead < self.nearest[1]:
            self.nearest = int(size), float(lead)

    def _by_order(self) -> Removed | None:
        """The smallest prefix of one of the orders that flips the contest."""
        searches = []
        for rival, order in self._orders()[:MAX_RIVALS]:
            gaps = self._gap(self.values, rival) - np.cumsum(self.contributions_to_gap(rival)[order])
            closed = np.flatnonzero(gaps < 0)
            first = int(closed[0]) + 1 if len(closed) else 1
            searches.append(RemovalSearch(order, self.limit, 0.0, first=min(first, self.limit)))
        outcomes: dict[tuple[int, int], Array] = {}
        at_once = 1 if self.retraining.how == "processes" else choose_stack(self.model, self.train).size
        while True:
            best = min((s.flipped for s in searches if s.flipped is not None), default=self.limit + 1)
            rows = [row for row, s in enumerate(searches) if not s.is_done and s.unflipped < best - 1]
            if self.progress is not None:
                self.progress("search", len(searches) - len(rows), len(searches))
            if not rows:
                break
            trials = [
                (row, size) for row in rows for size in searches[row].sizes(max(1, at_once // len(rows))) if size < best
            ] or [(row, best - 1) for row in rows]
            values = self._retrained([searches[row].order[:size] for row, size in trials])
            for (row, size), outcome in zip(trials, values, strict=True):
                if isinstance(outcome, str):
                    searches[row].record(size, outcome)
                    continue
                outcomes[row, size] = outcome
                searches[row].record(size, float(self._lead(outcome) < 0))
        flipped = [(s.flipped, row) for row, s in enumerate(searches) if s.flipped is not None]
        self.warnings += list(dict.fromkeys(s.note for s in searches if s.note and not flipped))
        if not flipped:
            return None
        size, row = min(flipped)
        return Removed(tuple(searches[row].order[:size].tolist()), outcomes[row, size])

    def _step_by_step(self, best: Removed | None) -> Removed | None:
        """A smaller set of a linear model, chosen one by one with the effects after each removal."""
        model = self.model
        if not isinstance(model, LinearModel) or model.refit is not None:
            return best
        limit = min(self.limit if best is None else len(best.positions) - 1, MAX_STEPS, MAX_SCORED // len(self.train))
        for rival, _ in self._orders()[:MAX_RIVALS]:
            removed: list[int] = []
            while len(removed) < limit:
                weights = np.ones(len(self.train))
                weights[removed] = 0.0
                remaining = np.flatnonzero(weights * sample_weights(self.train))
                try:
                    current = model.retrain(self.train, weights).hypothetical()
                    effects, _, _ = self.contest.effects(current, self.train.take(remaining), self.recipe)
                except ValueError:  # no class or no freedom is left
                    break
                contributions = np.full(len(self.train), -np.inf)
                contributions[remaining] = effects[self.leader] - effects[rival]
                allowed = self.positions[np.isin(self.positions, remaining)]
                step = int(allowed[np.argmax(contributions[allowed])]) if len(allowed) else -1
                if step < 0 or contributions[step] <= 0:
                    break
                removed.append(step)
                (values,) = self._retrained([np.array(removed)])
                if isinstance(values, str):
                    break
                if self._lead(values) < 0:
                    best, limit = Removed(tuple(removed), values), len(removed) - 1
                    break
        return best

    def _without_unneeded(self, best: Removed) -> Removed:
        """The set without the examples that it does not need, the weakest put back first."""
        start = self.trainings
        while len(best.positions) > 1 and self.trainings - start < MAX_PUT_BACK:
            smaller = [np.delete(best.positions, place) for place in reversed(range(len(best.positions)))]
            values = self._retrained(smaller)
            flips = [k for k, v in enumerate(values) if not isinstance(v, str) and self._lead(v) < 0]
            if not flips:
                return best
            values_without = values[flips[0]]
            assert not isinstance(values_without, str)
            best = Removed(tuple(smaller[flips[0]].tolist()), values_without)
        return best

    def _after_all_smaller_sets(self, best: Removed | None, budget: int) -> Removed | None:
        """The set, or a smaller one, after all smaller sets were retrained, if they are within the budget."""
        largest = self.limit if best is None else len(best.positions) - 1
        if best is not None and largest == 0:
            return best._replace(is_smallest=True)
        if sum(comb(len(self.positions), size) for size in range(1, largest + 1)) > budget:
            return best
        sets = chain.from_iterable(combinations(self.positions.tolist(), size) for size in range(1, largest + 1))
        while batch := [np.array(some) for some in islice(sets, SETS_AT_ONCE)]:
            for some, values in zip(batch, self._retrained(batch), strict=True):
                if not isinstance(values, str) and self._lead(values) < 0:
                    return Removed(self._strongest_first(some), values, is_smallest=True)
        return None if best is None else best._replace(is_smallest=True)

    def _strongest_first(self, removed: NDArray[np.intp]) -> tuple[int, ...]:
        rival = int(np.argmax(np.where(np.arange(len(self.values)) == self.leader, -np.inf, self.values)))
        return tuple(removed[np.argsort(-self.contributions_to_gap(rival)[removed], kind="stable")].tolist())

    def _retrained(self, removals: list[NDArray[np.intp]]) -> list[Array | str]:
        """The values without each of these sets, means over the seeds; or why it cannot be trained so."""
        seeds = self.retraining.runs
        tasks = [Task(removed=np.asarray(r, dtype=np.intp), seed=seed) for r in removals for seed in seeds]
        self.trainings += len(tasks)
        once = replace(self.retraining, seeds=[seeds[0]])
        outcomes = self._run(once, tasks)
        values: list[Array | str] = []
        for place, removed in enumerate(removals):
            part = outcomes[place * len(seeds) : (place + 1) * len(seeds)]
            refused = [outcome for outcome in part if isinstance(outcome, str)]
            values.append(refused[0] if refused else np.mean(part, axis=0))
            self.tried = max(self.tried, len(removed))
            if not refused and len(removed):
                self._note(len(removed), self._lead(np.asarray(values[-1])))
        return values

    def _run(self, retraining: Retraining, tasks: list[Task]) -> list[Any]:
        """The values after each training."""
        if isinstance(self.contest, Tested):
            parameters = try_tasks(retraining, self.model, self.train, tasks, None)
            return [self._tested(task, p) for task, p in zip(tasks, parameters, strict=True)]
        measurements = try_tasks(retraining, self.model, self.train, tasks, self.contest.queries, measured)
        if not isinstance(self.contest, Threshold):
            return measurements
        number = self.contest.number
        return [m if isinstance(m, str) else np.array([float(m[0]), number]) for m in measurements]

    def _tested(self, task: Task, parameters: Any) -> Array | str:
        """|t| and its critical value at retrained parameters, on the remaining examples."""
        if isinstance(parameters, str):
            return parameters
        _, weights = task.training_set(self.train)
        remaining = self.train.take(np.flatnonzero(weights * sample_weights(self.train)))
        assert isinstance(self.model, LinearModel)
        try:
            return self.contest.values(self.model.with_parameters(parameters).hypothetical(), remaining)
        except ValueError as error:
            return str(error)

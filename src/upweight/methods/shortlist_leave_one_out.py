"""Leave-one-out with a budget: retrain without each example, or without those of a shortlist, over several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts, Blocks
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import require_count
from upweight.core.capability_checks import can
from upweight.core.choices import require_choice
from upweight.core.examples import Examples
from upweight.core.forecast import counted
from upweight.core.laws import Law
from upweight.core.model import Embeddable
from upweight.core.refittable import Refittable
from upweight.core.scores import Unit
from upweight.core.weights import sample_weights, weighted_positions
from upweight.methods.parts.neighbour_game import neighbour_values
from upweight.methods.parts.refit_intervals import pooled_half_widths
from upweight.retraining.engine import try_tasks
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import Task

Array = NDArray[np.float64]
RANDOM_RUNS = 4  # trainings per training set if they are random and no number is given
NEIGHBOURS = 5  # of the nearest-neighbour vote by which a shortlist is ranked
MAX_REFUSALS_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class ShortlistLeaveOneOut(Attributor):
    """score[q, i] = mean over seeds of m_q(trained on everything) − m_q(trained without i), within a budget. EFFECT.

    If the budget does not reach for all examples, those of a shortlist are left out, and the others have no score
    (NaN). The shortlist depends on all queries of one call.

    Args:
        refits: how many trainings an answer may cost; None for all that the training set needs.
        seeds: trainings of each training set. None is 1 if training does not depend on its seed, and 4 if it does. With
            at least 2 every score has a 90 % interval, by Student's t over seeds.
        by: what ranks the examples for the shortlist. "neighbours": absolute KNN-Shapley values for the queries, on the
            features of the model's last step. "leaves": how often an example is in a leaf with a query, over all trees
            inside the estimator. "loss": the training examples with the largest loss. "both": in turn.
        processes: how many trainings run at once; 1 trains in this process, None uses all processors.
    """

    summary = "Retrain without each example, or without a shortlist, within a budget, with intervals from seeds"
    cost = "`refits` trainings; by default seeds × (n + 1)"
    unit = Unit.EFFECT
    needs = (Refittable,)

    refits: int | None = None
    seeds: int | None = None
    by: Literal["neighbours", "leaves", "loss", "both"] = "both"
    processes: int | None = 1

    def __post_init__(self) -> None:
        if self.refits is not None:
            require_count("refits", self.refits, least=2)
        if self.seeds is not None:
            require_count("seeds", self.seeds)
        require_choice("by", self.by, "neighbours", "leaves", "loss", "both")

    @property
    def promises(self) -> Promises:
        """The truth for every example that has a score, up to the noise of seeds, which the intervals hold."""
        if self.refits is None:
            return Promises(correlation=0.99, slope=(0.99, 1.01))
        alone = "the shortlist depends on all queries of one call"
        waives = dict.fromkeys((Law.BATCHES, Law.TOP, Law.HISTORY, Law.WEIGHTS, Law.COPY, Law.SELF, Law.GROUPS), alone)
        return Promises(no_floor="most examples have no score", waives=waives)

    def fit(self, model: Any, train: Examples) -> FittedShortlist:
        """Train on everything with every seed. Raises ValueError if the budget does not reach for one example."""
        trial = model.trial(train)
        runs = self.seeds or (RANDOM_RUNS if trial.is_random else 1)
        most = len(weighted_positions(train))
        affordable = most if self.refits is None else self.refits // runs - 1
        if affordable < 1:
            raise ValueError(f"expected refits ≥ {2 * runs}, twice the number of seeds, got {self.refits}")
        return FittedShortlist(self, model, train, trial, runs, min(affordable, most))


class FittedShortlist(Fitted[ShortlistLeaveOneOut, Any]):
    """The models trained so far: on everything, and without each example that an answer needed.

    Attributes:
        trial: what the first trainings showed.
        runs: trainings of each training set.
        affordable: how many examples an answer leaves out.
    """

    def __init__(
        self, recipe: ShortlistLeaveOneOut, model: Any, train: Examples, trial: Any, runs: int, affordable: int
    ) -> None:
        super().__init__(recipe, model, train, Unit.EFFECT)
        self.trial = trial
        self.runs = runs
        self.affordable = affordable
        self._positions = weighted_positions(train)
        whole = self._train([None])[0]
        if isinstance(whole, str):
            raise ValueError(whole)
        self._whole: Sequence[Any] = whole
        self._without: dict[int, Any] = {}  # position → one model per seed, or why the model cannot be trained
        self._last_facts = AnswerFacts()

    @property
    def is_complete(self) -> bool:
        """Whether the budget reaches for all examples."""
        return self.affordable == len(self._positions)

    @property
    def may_be_undefined(self) -> bool:
        """Examples outside of the shortlist have no score; nor those without which the model cannot be trained."""
        return True

    def blocks(self, queries: Examples) -> Blocks:
        """One block of all training examples; those that were not left out have NaN."""
        chosen = self._positions if self.is_complete else self._shortlist(queries)
        values, facts = self._effects(chosen, queries)
        yield slice(0, len(self.train)), values
        return facts

    def self_values(self) -> Array:
        """The effect of each example on itself; of a shortlist, the examples with the largest loss."""
        chosen = self._positions if self.is_complete else self._by_loss()[: self.affordable]
        values, half_widths = np.full(len(self.train), np.nan), np.full(len(self.train), np.nan)
        values[sample_weights(self.train) == 0] = half_widths[sample_weights(self.train) == 0] = 0.0
        self._leave_out(chosen)
        for position in counted(chosen.tolist(), len(chosen)):
            own, facts = self._effects(np.array([position]), self.train.take([position]))
            values[position] = own[0, position]
            half_widths[position] = 0.0 if facts.half_widths is None else facts.half_widths[0, position]
        self._last_facts = self._facts(values[None], half_widths[None] if self._has_intervals else None)
        return values

    def self_facts(self) -> AnswerFacts:
        """Intervals and undefined examples of the self-influence that was computed last."""
        return self._last_facts

    @property
    def _has_intervals(self) -> bool:
        return self.runs > 1 or not self.trial.is_random

    def _effects(self, chosen: NDArray[np.intp], queries: Examples) -> tuple[Array, AnswerFacts]:
        """(effects (m, n), NaN for examples that are not chosen; unit, intervals and undefined examples)."""
        self._leave_out(chosen)
        whole = np.stack([model.measure(queries) for model in self._whole])
        shape = (self.runs, len(queries), len(self.train))
        differences = np.full(shape, np.nan)
        differences[:, :, sample_weights(self.train) == 0] = 0.0
        for position in counted(chosen.tolist(), len(chosen)):
            models = self._without[position]
            if not isinstance(models, str):
                differences[:, :, position] = whole - np.stack([model.measure(queries) for model in models])
        values = differences.mean(axis=0)
        if not self._has_intervals:
            return values, self._facts(values, None)
        half_widths = pooled_half_widths(differences) if self.runs > 1 else np.where(np.isnan(values), np.nan, 0.0)
        return values, self._facts(values, half_widths)

    def _facts(self, values: Array, half_widths: Array | None) -> AnswerFacts:
        """The intervals of an answer, and a warning that names what has no score."""
        undefined = np.flatnonzero(np.isnan(values).all(axis=0))
        if not len(undefined):
            return AnswerFacts(half_widths=half_widths)
        warnings = [
            f"Example {self.train.ids[position].item()!r} has no score (NaN): {why}"
            for position, why in list(self._refused(undefined).items())[:MAX_REFUSALS_NAMED]
        ]
        if not self.is_complete:
            warnings.append(
                f"Only {self.affordable:,} of {len(self._positions):,} examples were left out, those that a shortlist "
                f"(by {self.recipe.by}) ranks first; the others have no score (NaN). More trainings reach further: "
                f"uw.ShortlistLeaveOneOut(refits={self.runs * (len(self._positions) + 1):,}) leaves out each example."
            )
        diagnostics = {"undefined": self.train.ids[undefined].tolist(), "warnings": warnings}
        return AnswerFacts(diagnostics=diagnostics, half_widths=half_widths)

    def _refused(self, positions: NDArray[np.intp]) -> dict[int, str]:
        """Position → why the model cannot be trained without that example."""
        outcomes = {position: self._without.get(position) for position in positions.tolist()}
        return {position: outcome for position, outcome in outcomes.items() if isinstance(outcome, str)}

    def _shortlist(self, queries: Examples) -> NDArray[np.intp]:
        """Positions of the examples that an answer to these queries leaves out."""
        rankings = []
        if self.recipe.by == "leaves":
            rankings.append(self._by_leaves(queries))
        elif self.recipe.by != "loss" and can(self.model, Embeddable):
            rankings.append(self._by_neighbours(queries))
        if self.recipe.by in ("loss", "both") or not rankings:
            rankings.append(self._by_loss())
        in_turn = np.stack(rankings, axis=1).ravel().tolist()
        return np.array(sorted(list(dict.fromkeys(in_turn))[: self.affordable]), dtype=np.intp)

    def _by_neighbours(self, queries: Examples) -> NDArray[np.intp]:
        """All positions, those with the largest absolute KNN-Shapley value for a query first."""
        features, train = self.model.embed(queries), self.train
        values = np.abs(neighbour_values(self.model.embed(train), train.y, features, queries.y, NEIGHBOURS))
        return self._in_turn(values)

    def _by_leaves(self, queries: Examples) -> NDArray[np.intp]:
        """All positions, those first that are in a leaf with a query in most trees.

        Raises ValueError if there are no trees inside the estimator.
        """
        own, others = self.model.leaves(queries), self.model.leaves(self.train)
        shared = [(others == leaves).mean(axis=1) for leaves in own]
        return self._in_turn(np.stack(shared))

    def _in_turn(self, values: Array) -> NDArray[np.intp]:
        """All positions by values (m, n): the k-th of every query stands before the k+1-th of any other."""
        ranks = np.argsort(np.argsort(-values[:, self._positions], axis=1, kind="stable"), axis=1, kind="stable")
        return np.asarray(self._positions[np.argsort(ranks.min(axis=0), kind="stable")])

    def _by_loss(self) -> NDArray[np.intp]:
        """All positions, those with the lowest measurement first."""
        measured = self.model.measure(self.train.take(self._positions))
        return np.asarray(self._positions[np.argsort(measured, kind="stable")])

    def _leave_out(self, chosen: NDArray[np.intp]) -> None:
        """Train without each of these examples that has not been left out before."""
        missing = [position for position in chosen.tolist() if position not in self._without]
        self._without.update(zip(missing, self._train(missing), strict=True))

    def _train(self, positions: Sequence[int | None]) -> list[Any]:
        """For each position the models trained without it (None: on everything), or why one cannot be trained."""
        if not positions:
            return []
        tasks = [
            Task(removed=None if position is None else np.array([position]), seed=seed)
            for position in positions
            for seed in range(self.runs)
        ]
        results = try_tasks(Retraining(processes=self.recipe.processes), self.model, self.train, tasks, None)
        by_set = [results[start : start + self.runs] for start in range(0, len(results), self.runs)]
        return [next((model for model in models if isinstance(model, str)), models) for models in by_set]

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How many trainings an answer costs, with how many seeds, and what the first trainings showed."""
        refits = self.runs * (self.affordable + 1)
        budget = (
            f"Scores come from {refits:,} refits: on everything and without each of {self.affordable:,} examples, with "
            f"{self.runs} seed{'s'[: self.runs > 1]} each."
        )
        noise = (
            []
            if self._has_intervals
            else ["Training depends on its seed, and scores of one seed have no interval; pass seeds=4 or more."]
        )
        warnings = [*self.model.notes, budget, *self.trial.notes, *noise]
        return {"trainings": refits, "seeds": self.runs, "is_random": self.trial.is_random, "warnings": warnings}

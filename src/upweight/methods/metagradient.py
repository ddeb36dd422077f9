"""Metagradient: the derivative of a measurement in the example weights, through the whole training run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts, Blocks
from upweight.core.attributor import Attributor, Promises
from upweight.core.blocks import blocks
from upweight.core.choices import require_choice
from upweight.core.deprecation import ReplacedBy, accept_old_fields
from upweight.core.examples import Examples, Id
from upweight.core.forecast import counted, equal_steps
from upweight.core.group_removal import GroupEffects, GroupRemoval
from upweight.core.laws import Law
from upweight.core.library_calls import library_call
from upweight.core.model import Differentiable, Parametric
from upweight.core.replay import Replay
from upweight.core.replayable import Replayable
from upweight.core.scores import Scores, Unit
from upweight.core.weights import weighted_positions
from upweight.methods.parts.metagradient_unit import EFFECT_SLOPES, answer_facts, require_agreement
from upweight.retraining.retrained_removals import RetrainedRemovals

Array = NDArray[np.float64]
SELF_BLOCK = 64  # training examples whose self-influence is computed at once
OTHER_RUN = 1e-2  # accepted distance of the replayed net from the model, as a share of how far training moved it
JITTER_SEED = 1  # a separate seed, so that the random removals are the same with and without jitter
NEARLY_ALL = 0.9  # share of the training set above which slopes still predict single examples
GROUP_WEIGHTS = {
    "midpoint": (0.5,),
    "first": (1.0,),
    "simpson": (1.0, 0.5, 0.0),
}  # where slopes are taken


@accept_old_fields({"gate": ReplacedBy("removals")})
@dataclass(frozen=True, kw_only=True)
class Metagradient(Attributor):
    """∂m_q(θ_T(w))/∂wᵢ by exact replay of the training (MAGIC, Engstrom et al. 2025, 2503.13751).

    Every answer is compared with retrainings that leave out random examples. It is EFFECT if it predicts them.

    Args:
        at: the weights at which the derivative is taken. "full": all weights 1, for leaving a few examples out.
            "centre": all weights `keep`, the mean of the training sets that removals leave; second-order terms cancel,
            and large removals are predicted as well as small ones.
        keep: the share of the training set that remains after the removals to be predicted. Use .9 for single examples
            and small groups, .5 for random halves.
        samples: random training sets of this share at which derivatives are taken and averaged, instead of the centre
            itself. With `jitter`: runs with jittered weights.
        jitter: smooths a training that does not respond smoothly to its weights. Every run multiplies the weights by
            1 + jitter · z, with z standard normal (and no weight below 0); e.g. jitter=0.1, samples=4.
        clip: the largest factor by which a query's cotangent may grow in one step of the backward pass, e.g. .99, so
            that early steps count less in a rough training. The derivative is no longer exact, and mostly too small:
            EFFECT only if retraining confirms the size as well.
        seeds: runs whose mean is the answer: the expected effect over initialisation, order and dropout.
        removals: how many random removals are retrained, for every answer to be compared with.
        floor: agreement with them (mean Pearson over queries) below which scores are RANK. Below .2 there is an error.
        folder: where backward passes are kept every √T steps, under the identities of runs and queries, so that they
            continue after an interruption and a finished one is read. It changes no answer.
    """

    summary = "The derivative of the measurement in every example's weight, through the whole training"
    paper = "Engstrom et al. (2025)"
    cost = "2m + 1 trainings' worth of arithmetic for m queries, times samples and seeds, and `removals` + 3 trainings"
    unit = Unit.EFFECT
    needs = (Differentiable, Parametric, Replayable)
    variants: ClassVar = {"full": {"at": "full"}, "centre of halves": {"keep": 0.5, "removals": 4}}

    at: Literal["full", "centre"] = "centre"
    keep: float = 0.9
    samples: int = 1
    jitter: float = 0.0
    clip: float | None = None
    seeds: int = 1
    removals: int = 8
    floor: float = 0.5
    folder: str | Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        require_choice("at", self.at, "full", "centre")
        if not 0 < self.keep < 1:
            raise ValueError(f"expected keep between 0 and 1, got {self.keep}")
        if min(self.samples, self.seeds) < 1 or self.removals < 0 or self.removals in (1, 2):
            raise ValueError("expected samples ≥ 1, seeds ≥ 1, and removals = 0 or ≥ 3")
        if not 0 <= self.jitter < np.inf:
            raise ValueError(f"expected jitter ≥ 0, the spread of the factors of example weights, got {self.jitter}")
        if self.jitter and self.samples == 1:
            raise ValueError("expected samples > 1 with jitter, which is averaged over runs; pass samples=4 as well")
        if self.at == "full" and self.samples > 1 and not self.jitter:
            raise ValueError('expected samples=1 at="full", where all are equal; pass at="centre" or jitter=0.1')
        if self.clip is not None and not 0 < self.clip < np.inf:
            raise ValueError(f"expected clip > 0, the largest growth of a cotangent in one step, got {self.clip}")

    @property
    def promises(self) -> Promises:
        """At the full training set, retraining up to second-order terms. Elsewhere no floor for single examples."""
        waives = {Law.REMOVAL: "scores are slopes at other training sets than the full one, where removals start"}
        if self.clip is not None or self.jitter or self.samples > 1 or (self.at != "full" and self.keep < NEARLY_ALL):
            reason = "slopes at smoothed or smaller training sets are made for large removals, not for single examples"
            return Promises(no_floor=reason, waives=waives)
        if not self.removals:
            return Promises(no_floor="without retraining (removals=0) the agreement is not known")
        return Promises(correlation=0.9, slope=EFFECT_SLOPES, waives={} if self.at == "full" else waives)

    def fit(self, model: Any, train: Examples) -> FittedMetagradient:
        """Replay the training, and retrain with random examples left out."""
        rng = np.random.default_rng(0)
        positions = weighted_positions(train)
        with equal_steps(3) as finished:
            reference = model.replay(train, np.ones(len(train)))
            _require_same_training(model, reference)
            finished()
            weightings = self._weightings(len(train), positions, rng)
            runs = product(range(self.seeds), weightings)
            replays = [
                reference if seed == 0 and (weights == 1).all() else model.replay(train, weights, seed)
                for seed, weights in counted(runs, self.seeds * len(weightings))
            ]
            finished()
            removals = np.array([_random_subset(rng, len(train), positions, self.keep) for _ in range(self.removals)])
            gate = None
            if self.removals:
                gate = RetrainedRemovals(model, train, removals, self.seeds, reference.parameters)
        return FittedMetagradient(self, model, train, replays, gate)

    def _weightings(self, n: int, positions: NDArray[np.intp], rng: np.random.Generator) -> list[Array]:
        """The weights (n,) at which derivatives are taken; random numbers are drawn at `positions` alone."""
        weights = np.ones(n) if self.at == "full" else np.full(n, self.keep)
        if self.jitter:
            noise = np.zeros((self.samples, n))
            noise[:, positions] = np.random.default_rng(JITTER_SEED).normal(size=(self.samples, len(positions)))
            return list(weights * np.maximum(1.0 + self.jitter * noise, 0.0))
        if self.samples == 1:
            return [weights]
        return [_random_subset(rng, n, positions, self.keep) for _ in range(self.samples)]


class FittedMetagradient(GroupRemoval[Metagradient, Any]):
    """Replayed runs, ready to be differentiated.

    Attributes:
        replays: one per seed and weighting.
        gate: the retrained removals with which every answer is compared; None if there are none.
    """

    forms = ("midpoint", "first", "simpson")

    def __init__(
        self,
        recipe: Metagradient,
        model: Any,
        train: Examples,
        replays: Sequence[Replay],
        gate: RetrainedRemovals | None,
    ) -> None:
        super().__init__(recipe, model, train, Unit.RANK if gate is None or recipe.clip else Unit.EFFECT)
        self.replays, self.gate = replays, gate
        self._replayed_models = [model.after(replay) for replay in replays]

    def blocks(self, queries: Examples) -> Blocks:
        """The mean metagradient of the runs, compared with retraining on these queries."""
        runs = self.by_run(queries)
        values = runs.mean(axis=0)
        effects = None if self.gate is None else self.gate.effects(queries, values)
        facts = answer_facts(self.recipe, self.gate, effects, self._smoothing(runs, values))
        require_agreement(self.recipe, self.gate, facts)
        yield slice(0, len(self.train)), values
        return facts

    def by_run(self, queries: Examples) -> Array:
        """Scores (runs, m, n) of every seed and sample, for the spread of the effect over them."""
        runs = zip(self.replays, self._replayed_models, strict=True)
        return np.stack(
            [
                replay.gradients(model.outcome_rows(queries, replay), self.recipe.folder, self.recipe.clip)
                for replay, model in counted(runs, len(self.replays))
            ]
        )

    def self_values(self) -> Array:
        """The score of each training example on itself."""
        return np.concatenate([values for values, _ in self._self_blocks()])

    @library_call
    def self_influence(self) -> Scores:
        """One row, `self`, in the unit that retraining confirms on the training examples."""
        self.require_unchanged()
        with self.announced_self_influence():
            values, effects = zip(*self._self_blocks(), strict=True)
        actual_predicted = None
        if self.gate is not None:
            actual, predicted = np.concatenate(effects, axis=1)
            actual_predicted = (actual, predicted)
        facts = answer_facts(self.recipe, self.gate, actual_predicted, self._smoothing(None, None))
        return self.scores(np.concatenate(values)[None, :], np.array(["self"]), self.train.ids, facts=facts)

    def _self_blocks(self) -> Iterator[tuple[Array, Any]]:
        """(self-influence, (actual, predicted) effects of the retrained removals) of consecutive training examples."""
        parts = zip(blocks(len(self.train), SELF_BLOCK), self.train.batches(SELF_BLOCK), strict=True)
        for block, examples in parts:
            values = self.by_run(examples).mean(axis=0)
            effects = None if self.gate is None else np.stack(self.gate.effects(examples, values))
            yield np.diagonal(values[:, block.start :]), effects

    def remove(
        self,
        groups: Mapping[str, Sequence[Id]],
        queries: Examples | None = None,
        form: str | None = None,
        rule: str | None = None,
    ) -> Scores:
        """The effect of whole groups, one column each, from runs in which the group has half its weight.

        Args:
            groups: name → train ids.
            queries: what to measure.
            form: the weight of the group at which the slope is taken: ½ ("midpoint" or None, exact to third order, one
                run in forward mode per group), 1 ("first"), or Simpson's mean over 1, ½ and 0 ("simpson"), whose
                distance from the midpoint is reported as `form_error`.
            rule: the older name of `form`.

        Runs are differentiated in forward mode, so `clip`, `samples` and `jitter` are not used.
        """
        if rule is not None:
            warnings.warn("rule= is now called form=", DeprecationWarning, stacklevel=2)
        return self.answer_groups(groups, queries, form or rule, self.removed)

    def removed(self, membership: NDArray[np.bool_], queries: Examples, form: str) -> GroupEffects:
        """Effects of groups (groups, n): the slopes along the weight of each group, or their mean."""
        weights = GROUP_WEIGHTS[form]
        slopes = np.array([[self._slope(row, weight, queries) for weight in weights] for row in membership])
        if form != "simpson":
            return slopes[:, 0].T, AnswerFacts()
        values = (slopes[:, 0] + 4 * slopes[:, 1] + slopes[:, 2]) / 6  # of slopes (groups, weights, m)
        error = float(np.abs(values - slopes[:, 1]).max())
        return values.T, AnswerFacts(diagnostics={"form_error": error})

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """Number of runs and metasmoothness. Agreement with retraining belongs to each answer."""
        warnings = list(self.original_model.notes)
        if self.gate is None:
            warnings.append("There was no retraining (removals=0), so it is not known whether these scores predict it.")
        metasmoothness = None if self.gate is None else self.gate.metasmoothness
        return {"runs": len(self.replays), "metasmoothness": metasmoothness, "warnings": warnings}

    def _slope(self, group: Array, group_weight: float, queries: Examples) -> Array:
        """∂m/∂(weight of the group) at this weight of the group, mean over seeds: (m,)."""
        slopes = []
        for seed in range(self.recipe.seeds):
            replay = self.model.replay(self.train, 1.0 - (1.0 - group_weight) * group, seed)
            rows = self.model.after(replay).outcome_rows(queries, replay)
            slopes.append(rows.project(np.ascontiguousarray(replay.shifts(group[None]).T))[:, 0])
        return np.asarray(np.mean(slopes, axis=0))

    def _smoothing(self, runs: Array | None, values: Array | None) -> dict[str, Any]:
        """Spread of the scores (runs, m, n) around their mean values (m, n), and share of clipped steps."""
        facts: dict[str, Any] = {}
        if runs is not None and values is not None and len(runs) > 1:
            facts["spread"] = float(runs.std(axis=0).mean() / max(float(np.abs(values).mean()), 1e-300))
        if self.recipe.clip is not None:
            facts["clipped"] = float(np.mean([replay.clipped for replay in self.replays]))
        return facts


def _require_same_training(model: Any, reference: Replay) -> None:
    """Raise ValueError if retraining on everything gives another model than the given one."""
    moved = float(np.linalg.norm(model.parameters - reference.beginning))
    distance = float(np.linalg.norm(reference.parameters - model.parameters)) / max(moved, 1e-300)
    if distance > OTHER_RUN:
        raise ValueError(
            "retraining does not end at the model: the distance between their parameters is "
            f"{distance:.2g} of how far training moves them. `training` is not how this net was trained, or the "
            "training set, its order or the initial net differ; TorchModel.trained(net, loss, train, "
            "training=…) makes both at once"
        )
    statistics, expected = model.running_statistics(reference), reference.statistics
    if len(expected) and np.linalg.norm(statistics - expected) > OTHER_RUN * np.linalg.norm(expected):
        raise ValueError(
            "retraining ends at the parameters of the model, but at other running statistics of its batch norms: the "
            "net trained in another mode or on other batches, or its statistics were estimated anew after the "
            "training. Pass the net as the training left it"
        )


def _random_subset(rng: np.random.Generator, n: int, counted: NDArray[np.intp], keep: float) -> Array:
    """Weights (n,): 1 for a random share of the counted examples, 0 for all others."""
    weights, count = np.zeros(n), len(counted)
    weights[counted[rng.choice(count, min(max(1, round(keep * count)), count - 1), replace=False)]] = 1.0
    return weights

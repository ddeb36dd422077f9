"""Metagradient: the derivative of a prediction in the example weights, through the whole training run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts, Blocks
from upweight.core.attributor import Attributor, Promises
from upweight.core.change_checks import check_changes_once
from upweight.core.deprecation import ReplacedBy, accept_old_fields
from upweight.core.examples import Examples, Id
from upweight.core.group_removal import GroupEffects, GroupRemoval
from upweight.core.laws import Law
from upweight.core.model import Differentiable, Parametric, Replayable
from upweight.core.replay import Replay
from upweight.core.scores import Scores, Unit
from upweight.core.weights import weighted_positions
from upweight.retraining.retrained_removals import RetrainedRemovals, within_query_agreement

Array = NDArray[np.float64]
OWN = 64  # training examples whose own scores are taken at a time
STRANGE = 1e-2  # how far training again may end from the model, as a share of the way it went: further is another run
JITTER = 1  # seed of its own random numbers: the gate removes what it would remove without
NEARLY_ALL = 0.9  # share of the training set at which slopes are still those of single examples
SIZED = (0.7, 1.4)  # slope of actual on predicted within which scores are effects
HOPELESS = 0.2  # agreement with retraining below which there is no answer
WEIGHTS = {"midpoint": (0.5,), "first": (1.0,), "simpson": (1.0, 0.5, 0.0)}  # weights of a group where slopes are taken


@accept_old_fields({"gate": ReplacedBy("removals")})
@dataclass(frozen=True, kw_only=True)
class Metagradient(Attributor):
    """∂m_q(θ_T(w))/∂wᵢ by exact replay of training (MAGIC, Engstrom et al. 2025, 2503.13751), held against retraining.

    EFFECT where the gate agrees.

    Args:
        at: where the derivative is taken. "full": at all weights 1, what leaving a few out does. "centre": at all
            weights `keep`, the mean of the training sets that removals leave: second-order terms cancel, and large
            removals are predicted as well as small ones.
        keep: the share of the training set that the removals in question leave. .9 serves single examples and small
            groups; for random halves say .5.
        samples: random training sets of this share at which derivatives are taken and averaged, instead of the centre
            itself; with `jitter`, runs at that place with jittered weights.
        jitter: smooths a training that reacts roughly to its weights: every run has them times 1 + jitter · z, z normal
            (nothing below 0), from `at`; e.g. jitter=0.1, samples=4.
        clip: the largest factor by which one step may let a query's cotangent grow on the way back, e.g. .99: what came
            of early steps through a rough training counts less. No exact derivative any more, and mostly too small:
            EFFECT only where the gate finds the size as well.
        seeds: runs whose mean is the answer: the effect to expect over initialisation, order and dropout.
        removals: random ones that are really retrained and predicted, every time queries are asked.
        floor: agreement with them (mean Pearson over queries) below which scores are RANK; below .2 there are none.
        folder: where passes back through a run are kept every √T steps, with the runs' and queries' names: asked again
            after an interruption, they go on from there, and one that was finished is read. It changes no answer.
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
        if self.at not in ("full", "centre"):
            raise ValueError(f'expected at="full" or "centre", got {self.at!r}')
        if not 0 < self.keep < 1:
            raise ValueError(f"expected keep between 0 and 1, got {self.keep}")
        if min(self.samples, self.seeds) < 1 or self.removals < 0 or self.removals in (1, 2):
            raise ValueError("expected samples ≥ 1, seeds ≥ 1, and removals = 0 or ≥ 3")
        if not 0 <= self.jitter < np.inf:
            raise ValueError(f"expected jitter ≥ 0, the spread of the factors of example weights, got {self.jitter}")
        if self.jitter and self.samples == 1:
            raise ValueError("jitter is averaged over runs: one of them is only a worse place; pass samples=4 as well")
        if self.at == "full" and self.samples > 1 and not self.jitter:
            raise ValueError('samples are training sets around the centre; use at="centre", or jitter=0.1')
        if self.clip is not None and not 0 < self.clip < np.inf:
            raise ValueError(f"expected clip > 0, the largest growth of a cotangent in one step, got {self.clip}")

    @property
    def promises(self) -> Promises:
        """At the full set, retraining itself but for second-order terms; elsewhere single examples are not its aim."""
        waives = {Law.REMOVAL: "scores are slopes at other training sets than the full one, which a removal begins at"}
        if self.clip is not None or self.jitter or self.samples > 1 or (self.at != "full" and self.keep < NEARLY_ALL):
            reason = "slopes at smoothed or smaller training sets are made for large removals, not for single examples"
            return Promises(no_floor=reason, waives=waives)
        if not self.removals:
            return Promises(no_floor="no retraining was asked for (removals=0), so that nothing says whether it agrees")
        return Promises(correlation=0.9, slope=SIZED, waives={} if self.at == "full" else waives)

    def fit(self, model: Any, train: Examples) -> FittedMetagradient:
        """Make the runs, and the retrainings of the gate."""
        rng = np.random.default_rng(0)
        counted = weighted_positions(train)
        reference = model.replay(train, np.ones(len(train)))
        _require_same(model, reference)
        places = self._places(len(train), counted, rng)
        replays = [
            reference if seed == 0 and (weights == 1).all() else model.replay(train, weights, seed)
            for seed in range(self.seeds)
            for weights in places
        ]
        removals = np.array([_subset(rng, len(train), counted, self.keep) for _ in range(self.removals)])
        gate = RetrainedRemovals(model, train, removals, self.seeds, reference.parameters) if self.removals else None
        return FittedMetagradient(self, model, train, replays, gate)

    def _places(self, n: int, counted: NDArray[np.intp], rng: np.random.Generator) -> list[Array]:
        """The weights (n,) at which derivatives are taken; what is drawn is drawn for the examples that count."""
        place = np.ones(n) if self.at == "full" else np.full(n, self.keep)
        if self.jitter:
            drawn = np.zeros((self.samples, n))
            drawn[:, counted] = np.random.default_rng(JITTER).normal(size=(self.samples, len(counted)))
            return list(place * np.maximum(1.0 + self.jitter * drawn, 0.0))
        return [place] if self.samples == 1 else [_subset(rng, n, counted, self.keep) for _ in range(self.samples)]


class FittedMetagradient(GroupRemoval[Metagradient, Any]):
    """Replayed runs, ready to be gone through backwards."""

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
        self._there = [model.with_parameters(replay.parameters) for replay in replays]

    def blocks(self, queries: Examples) -> Blocks:
        """The mean metagradient of the runs, held against the gate's retrainings on these queries."""
        runs = self.by_run(queries)
        values = runs.mean(axis=0)
        facts = self._smoothing(runs, values)
        pairs = None if self.gate is None else self.gate.effects(queries, values)
        answer = self._judged(facts, pairs)
        if answer.diagnostics.get("agreement", 1.0) < HOPELESS:
            assert self.gate is not None
            raise ValueError(
                f"metagradients do not predict this training: {len(self.gate)} real retrainings agree with them at "
                f"{answer.diagnostics['agreement']:.2f} (metasmoothness {self.gate.metasmoothness:.2f}). "
                f"{self._ways_out()}"
            )
        yield slice(0, len(self.train)), values
        return answer

    def by_run(self, queries: Examples) -> Array:
        """Scores (runs, m, n) of every seed and sample, for the spread of the effect over them."""
        pairs = zip(self.replays, self._there, strict=True)
        return np.stack(
            [
                replay.gradients(there.measure_rows(queries), self.recipe.folder, self.recipe.clip)
                for replay, there in pairs
            ]
        )

    def self_values(self) -> Array:
        """Each training example's own score, from the metagradients of all of them."""
        return np.concatenate([own for own, _ in self._own()])

    @check_changes_once
    def self_influence(self) -> Scores:
        """One row, `self`, in the unit that the gate's retrainings give it on the training examples."""
        self.require_unchanged()
        own, pairs = zip(*self._own(), strict=True)
        found = None if self.gate is None else np.concatenate(pairs, axis=1)
        answer = self._judged(self._smoothing(None, None), None if found is None else (found[0], found[1]))
        return self.scores(np.concatenate(own)[None, :], np.array(["self"]), self.train.ids, facts=answer)

    def _own(self) -> Iterator[tuple[Array, Any]]:
        """(own scores, what the gate has to compare (2, m, removals)) of some training examples after the others."""
        for first, some in zip(range(0, len(self.train), OWN), self.train.batches(OWN), strict=True):
            values = self.by_run(some).mean(axis=0)
            yield (
                np.diagonal(values[:, first:]),
                None if self.gate is None else np.stack(self.gate.effects(some, values)),
            )

    def remove(
        self,
        groups: Mapping[str, Sequence[Id]],
        queries: Examples,
        form: str | None = None,
        rule: str | None = None,
    ) -> Scores:
        """The effect of whole groups, one column each, by runs in which the group has half its weight.

        Args:
            groups: name → train ids.
            queries: what to measure.
            form: where the slope along the group's weight is taken: at ½ ("midpoint" or None, exact to third order, one
                run in forward mode a group), at 1 ("first"), or Simpson's mean of 1, ½ and 0, whose distance from the
                midpoint is reported as `form_error`.
            rule: the older name of `form`.

        Runs are gone through forwards and at one place: `clip`, `samples` and `jitter` have no part in it.
        """
        if rule is not None:
            warnings.warn("rule= is now called form=", DeprecationWarning, stacklevel=2)
        return self.answer_groups(groups, queries, form or rule, self.removed)

    def removed(self, member: NDArray[np.bool_], queries: Examples, form: str) -> GroupEffects:
        """Slopes along the weight of every group, and their mean."""
        slopes = np.array([[self._slope(row, left, queries) for left in WEIGHTS[form]] for row in member])
        if form != "simpson":
            return slopes[:, 0].T, AnswerFacts()
        values = (slopes[:, 0] + 4 * slopes[:, 1] + slopes[:, 2]) / 6  # of slopes (groups, places, m)
        error = float(np.abs(values - slopes[:, 1]).max())
        return values.T, AnswerFacts(diagnostics={"form_error": error})

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """Runs and metasmoothness; what the gate says belongs to the answers."""
        notes = list(self.handed_in.notes)
        if self.gate is None:
            notes.append("No retraining was asked for (removals=0): nothing says whether these scores predict one.")
        smoothness = None if self.gate is None else self.gate.metasmoothness
        return {"runs": len(self.replays), "metasmoothness": smoothness, "warnings": notes}

    def _slope(self, member: Array, left: float, queries: Examples) -> Array:
        """∂m/∂(weight of the group) where it has the weight `left`, mean over seeds: (m,)."""
        found = []
        for seed in range(self.recipe.seeds):
            replay = self.model.replay(self.train, 1.0 - (1.0 - left) * member, seed)
            rows = self.model.with_parameters(replay.parameters).measure_rows(queries)
            found.append(rows.project(np.ascontiguousarray(replay.shifts(member[None]).T))[:, 0])
        return np.asarray(np.mean(found, axis=0))

    def _smoothing(self, runs: Array | None, values: Array | None) -> dict[str, Any]:
        """What was done to scores (runs, m, n) of which these (m, n) are the mean."""
        facts: dict[str, Any] = {}
        if runs is not None and values is not None and len(runs) > 1:
            facts["spread"] = float(runs.std(axis=0).mean() / max(float(np.abs(values).mean()), 1e-300))
        if self.recipe.clip is not None:
            facts["clipped"] = float(np.mean([replay.clipped for replay in self.replays]))
        return facts

    def _judged(self, facts: dict[str, Any], pairs: tuple[Array, Array] | None) -> AnswerFacts:
        """The unit of an answer by how its predictions of the gate's removals agree with what happened."""
        if self.gate is None or pairs is None:
            return AnswerFacts(diagnostics=facts)
        agreement, slope = within_query_agreement(*pairs)
        facts = {**facts, "agreement": agreement, "slope": slope, "trainings": self.gate.trainings}
        has_size = self.recipe.clip is None or SIZED[0] <= slope <= SIZED[1]
        unit = Unit.EFFECT if agreement >= self.recipe.floor and has_size else Unit.RANK
        if agreement < self.recipe.floor:
            facts["warnings"] = [
                f"Predictions of {len(self.gate)} real retrainings agree with what happened at only {agreement:.2f} "
                f"(asked: {self.recipe.floor:g}): this training reacts roughly to its weights, scores are a ranking. "
                f"{self._ways_out()}"
            ]
        elif unit == Unit.RANK:
            facts["warnings"] = [
                f"The adjoint was clipped in {facts['clipped']:.0%} of steps and queries: effects are {slope:.2g} "
                "times the scores, which are a ranking; leave clip out for sizes."
            ]
        return AnswerFacts(unit, facts)

    def _ways_out(self) -> str:
        """What helps with a rough training, and what it gave where it was measured."""
        smoothing = []
        if self.recipe.clip is None:
            smoothing.append("clip=0.99 (LDS on two rough runs .22 to .34 and .72 to .81)")
        if not self.recipe.jitter:
            smoothing.append("jitter=0.1 with samples=4 (LDS .22 to .26, with clip=0.99 to .41)")
        passed = f"Pass {' and '.join(smoothing)}; train" if smoothing else "Train"
        return (
            f"{passed} with a smaller lr, larger batches, warm-up or smooth activations; or use Influence or SOURCE, "
            "which need no smooth run."
        )


def _require_same(model: Any, reference: Replay) -> None:
    """Refuse a training that gives another model than the one handed in."""
    here, there = model.parameters, reference.parameters
    way = float(np.linalg.norm(here - reference.beginning))
    distance = float(np.linalg.norm(there - here)) / max(way, 1e-300)
    if distance > STRANGE:
        raise ValueError(
            f"training again ends {distance:.2g} of its way from the model's parameters: `training` is not how this "
            "net was trained, or the training set, its order or the initial net are others; "
            "TorchModel.trained(net, loss, train, training=…) makes both at once"
        )


def _subset(rng: np.random.Generator, n: int, counted: NDArray[np.intp], keep: float) -> Array:
    """Weights (n,): 1 for a random share of the examples that count."""
    weights, many = np.zeros(n), len(counted)
    weights[counted[rng.choice(many, min(max(1, round(keep * many)), many - 1), replace=False)]] = 1.0
    return weights

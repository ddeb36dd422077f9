"""Metagradient: the derivative of a prediction in the example weights, through the whole training run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.examples import Examples, Id
from upweight.core.model import Differentiable, Parametric, Replayable, require
from upweight.core.replay import Replay
from upweight.core.scores import Scores, Unit
from upweight.core.weights import own_weights, present
from upweight.methods.gate import Gate

Array = NDArray[np.float64]
TOGETHER = 64  # training examples whose own scores are taken at a time
STRANGE = 1e-2  # how far training again may end from the model, as a share of the way it went: further is another run
JITTER = 1  # seed of its own random numbers: the gate removes what it would remove without
SIZED = (0.7, 1.4)  # slope of actual on predicted within which scores are effects
HOPELESS = 0.2  # agreement with retraining below which there is no answer
BENDS = {"midpoint": (0.5,), "first": (1.0,), "simpson": (1.0, 0.5, 0.0)}  # weights of a group where slopes are taken


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
        gate: random removals that are really retrained and predicted, every time queries are asked.
        floor: agreement with them (mean Pearson over queries) below which scores are RANK; below .2 there are none.
        folder: where passes back through a run are kept every √T steps, with the runs' and queries' names: asked again
            after an interruption, they go on from there, and one that was finished is read. It changes no answer.

    Cost: 2m + 1 trainings' worth of arithmetic for m queries, times samples and seeds, and `gate` + 3 trainings.
    """

    at: Literal["full", "centre"] = "centre"
    keep: float = 0.9
    samples: int = 1
    jitter: float = 0.0
    clip: float | None = None
    seeds: int = 1
    gate: int = 8
    floor: float = 0.5
    folder: str | Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.at not in ("full", "centre"):
            raise ValueError(f'expected at="full" or "centre", got {self.at!r}')
        if not 0 < self.keep < 1:
            raise ValueError(f"expected keep between 0 and 1, got {self.keep}")
        if min(self.samples, self.seeds) < 1 or self.gate < 0 or self.gate in (1, 2):
            raise ValueError("expected samples ≥ 1, seeds ≥ 1, and gate = 0 or ≥ 3 retrainings")
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
        if self.at == "full" and self.gate and self.clip is None and not self.jitter:
            return Promises(correlation=0.9, slope=SIZED)
        return Promises()

    def fit(self, model: Any, train: Examples) -> FittedMetagradient:
        """Make the runs, and the retrainings of the gate."""
        require(model, [Differentiable, Parametric, Replayable], "Metagradient", train)
        rng = np.random.default_rng(0)
        counted = present(train)
        reference = model.replay(train, np.ones(len(train)))
        _require_same(model, reference)
        places = self._places(len(train), counted, rng)
        replays = [
            reference if seed == 0 and (weights == 1).all() else model.replay(train, weights, seed)
            for seed in range(self.seeds)
            for weights in places
        ]
        removals = np.array([_subset(rng, len(train), counted, self.keep) for _ in range(self.gate)])
        gate = Gate(model, train, removals, self.seeds, reference.parameters) if self.gate else None
        return FittedMetagradient(self, model, train, replays, gate)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedMetagradient:
        """Runs are made again: a training is smaller on disk as what it was made from."""
        return self.fit(model, train)

    def _places(self, n: int, counted: NDArray[np.intp], rng: np.random.Generator) -> list[Array]:
        """The weights (n,) at which derivatives are taken; what is drawn is drawn for the examples that count."""
        place = np.ones(n) if self.at == "full" else np.full(n, self.keep)
        if self.jitter:
            drawn = np.zeros((self.samples, n))
            drawn[:, counted] = np.random.default_rng(JITTER).normal(size=(self.samples, len(counted)))
            return list(place * np.maximum(1.0 + self.jitter * drawn, 0.0))
        return [place] if self.samples == 1 else [_subset(rng, n, counted, self.keep) for _ in range(self.samples)]


class FittedMetagradient(Fitted):
    """Replayed runs, ready to be gone through backwards."""

    def __init__(
        self, recipe: Metagradient, model: Any, train: Examples, replays: Sequence[Replay], gate: Gate | None
    ) -> None:
        super().__init__(recipe, model, train, Unit.RANK if gate is None or recipe.clip else Unit.EFFECT)
        self.settings, self.trainable = recipe, model
        self.replays, self.gate = replays, gate
        self._there = [model.with_parameters(replay.parameters) for replay in replays]
        self._told: dict[str, Any] = {}

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """The mean metagradient of the runs, with the gate's word on these queries."""
        runs = self.by_run(queries)
        values = runs.mean(axis=0)
        self._told = self._smoothing(runs, values)
        self._hold_against_retraining(queries, values)
        yield slice(0, len(self.train)), values

    def by_run(self, queries: Examples) -> Array:
        """Scores (runs, m, n) of every seed and sample, for the spread of the effect over them."""
        pairs = zip(self.replays, self._there, strict=True)
        return np.stack(
            [
                replay.gradients(there.measure_rows(queries), self.settings.folder, self.settings.clip)
                for replay, there in pairs
            ]
        )

    def self_values(self) -> Array:
        """Each training example's own score, from the metagradients of all of them."""
        own = [
            np.diagonal(self.by_run(some).mean(axis=0)[:, first:])
            for first, some in zip(range(0, len(self.train), TOGETHER), self.train.batches(TOGETHER), strict=True)
        ]
        return np.concatenate(own)

    def remove(
        self,
        groups: Mapping[str, Sequence[Id]],
        queries: Examples,
        rule: Literal["first", "midpoint", "simpson"] = "midpoint",
    ) -> Scores:
        """The effect of whole groups, one column each, by runs in which the group has half its weight.

        Args:
            groups: name → train ids.
            queries: what to measure.
            rule: where the slope along the group's weight is taken: at 1 ("first"), at ½ ("midpoint", exact to third
                order, one run in forward mode a group), or Simpson's mean of 1, ½ and 0, whose distance from the
                midpoint is reported as `rule_error`.

        Runs are gone through forwards and at one place: `clip`, `samples` and `jitter` have no part in it.
        """
        if rule not in BENDS:
            raise ValueError(f"expected rule to be one of {', '.join(BENDS)}, got {rule!r}")
        if not groups:
            raise ValueError("expected at least one group, e.g. {'children': [17, 42]}")
        found = []
        for name, ids in groups.items():
            member = np.zeros(len(self.train))
            member[self.train.positions(ids)] = 1.0
            if not (member.any() and (own_weights(self.train) * (1.0 - member)).any()):
                raise ValueError(
                    f"expected group {name!r} to be some of the training examples, got {int(member.sum())}"
                )
            found.append([self._slope(member, left, queries) for left in BENDS[rule]])
        slopes = np.array(found)  # (groups, places, m)
        values = slopes[:, 0] if rule != "simpson" else (slopes[:, 0] + 4 * slopes[:, 1] + slopes[:, 2]) / 6
        self._told = {name: fact for name, fact in self._told.items() if name not in ("clipped", "spread")}
        if rule == "simpson":
            self._told = {**self._told, "rule_error": float(np.abs(values - slopes[:, 1]).max())}
        measured = self.model.measure(queries)
        return self.scores(values.T, queries.ids, np.array(list(groups)), measured, self.model.predict(queries))

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """The gate on the queries asked last, metasmoothness, runs; warnings first."""
        warnings = list(getattr(self.handed_in, "notes", ()))
        if self.gate is None:
            warnings.append("No retraining was asked for (gate=0): nothing says whether these scores predict one.")
        elif self._told.get("agreement", 1.0) < self.settings.floor:
            warnings.append(
                f"Predictions of {len(self.gate)} real retrainings agree with what happened at only "
                f"{self._told['agreement']:.2f} (asked: {self.settings.floor:g}): this training reacts roughly to its "
                f"weights, scores are a ranking. {self._ways_out()}"
            )
        elif "clipped" in self._told and self.unit == Unit.RANK:
            warnings.append(
                f"The adjoint was clipped in {self._told['clipped']:.0%} of steps and queries: effects are "
                f"{self._told['slope']:.2g} times the scores, which are a ranking; leave clip out for sizes."
            )
        smoothness = None if self.gate is None else self.gate.smoothness
        return {"runs": len(self.replays), "metasmoothness": smoothness, **self._told, "warnings": warnings}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Nothing that training would not make again."""
        return {}, {}

    def _slope(self, member: Array, left: float, queries: Examples) -> Array:
        """∂m/∂(weight of the group) where it has the weight `left`, mean over seeds: (m,)."""
        found = []
        for seed in range(self.settings.seeds):
            replay = self.trainable.replay(self.train, 1.0 - (1.0 - left) * member, seed)
            rows = self.trainable.with_parameters(replay.parameters).measure_rows(queries)
            found.append(rows.project(np.ascontiguousarray(replay.shifts(member[None]).T))[:, 0])
        return np.asarray(np.mean(found, axis=0))

    def _smoothing(self, runs: Array, values: Array) -> dict[str, Any]:
        """What was done to scores (runs, m, n) of which these (m, n) are the mean."""
        told: dict[str, Any] = {}
        if len(runs) > 1:
            told["spread"] = float(runs.std(axis=0).mean() / max(float(np.abs(values).mean()), 1e-300))
        if self.settings.clip is not None:
            told["clipped"] = float(np.mean([replay.clipped for replay in self.replays]))
        return told

    def _hold_against_retraining(self, queries: Examples, values: Array) -> None:
        """Compare with the gate's retrainings, and say in which unit these scores are."""
        if self.gate is None:
            return
        agreement, slope = self.gate.agreement(queries, values)
        self._told |= {"agreement": agreement, "slope": slope, "retrainings": len(self.gate)}
        if agreement < HOPELESS:
            raise ValueError(
                f"metagradients do not predict this training: {len(self.gate)} real retrainings agree with them at "
                f"{agreement:.2f} (metasmoothness {self.gate.smoothness:.2f}). {self._ways_out()}"
            )
        sized = self.settings.clip is None or SIZED[0] <= slope <= SIZED[1]
        self.unit = Unit.EFFECT if agreement >= self.settings.floor and sized else Unit.RANK

    def _ways_out(self) -> str:
        """What helps with a rough training, and what it gave where it was measured."""
        smoothing = []
        if self.settings.clip is None:
            smoothing.append("clip=0.99 (LDS on two rough runs .22 to .34 and .72 to .81)")
        if not self.settings.jitter:
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

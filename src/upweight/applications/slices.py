"""Slices: which groups of training examples caused the failures in a slice of the queries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.applications.groups import Groups, groups_of, slice_of
from upweight.applications.judged import Judged
from upweight.core.attributor import Attributor
from upweight.core.blocks import require_count
from upweight.core.capability_checks import can, require, why_not_verified
from upweight.core.deprecation import BuiltBy, RenamedAttribute, ReplacedBy, accept_old_fields, accept_old_keywords
from upweight.core.examples import Examples
from upweight.core.group_removal import group_effects
from upweight.core.library_calls import with_gradients
from upweight.core.model import Measurable, Retrainable
from upweight.core.progress import no_progress
from upweight.core.scores import Unit
from upweight.core.tabular import Tabular
from upweight.evaluate.verdict import Judgement, judge, result_words
from upweight.methods.registry import first_choice
from upweight.retraining import deprecated_keywords
from upweight.retraining.engine import run_tasks
from upweight.retraining.retrained_outputs import RetrainedOutputs
from upweight.retraining.retraining import ONE_BY_ONE, Retraining
from upweight.retraining.task import Task

Array = NDArray[np.float64]
LEVEL = 0.9
BOOTSTRAP_DRAWS = 1000  # resamples of a slice's queries


@dataclass(frozen=True, eq=False)
class Slicing:
    """The groups of training examples and the slices of queries to compare.

    Args:
        by: names of columns, or name → one value per training example. A column of many distinct numbers is cut into
            fifths.
        failing: the slices: query ids, a mask over the queries, or name → either. None for the queries that the model
            gets wrong.
        smallest: groups with fewer training examples than this are left out of the table.
    """

    by: Mapping[str, Any] | Sequence[str] | str
    failing: Mapping[str, Any] | Any = None
    smallest: int = 2

    def __post_init__(self) -> None:
        if self.smallest < 1:
            raise ValueError(f"expected smallest ≥ 1, got {self.smallest}")


@accept_old_fields({"turned": ReplacedBy("flips")})
@dataclass(frozen=True, eq=False)
class Slices(Judged, Tabular):
    """A table of effects: groups of training examples × slices of queries.

    An effect is the mean measurement of the slice **with** the group minus **without** it. It is negative if the group
    made the slice worse.

    Attributes:
        effects: (groups, slices), predicted for the removal of the whole group.
        low, high: (groups, slices), 90 % bootstrap interval over the queries of the slice.
        actual: (groups, slices), by retraining without the group; NaN if the group was not retrained.
        flips: (groups, slices), how many predictions of the slice flip without the group; −1 if not retrained.
        groups: names and members (positions in `train`), in the order of the rows.
        slices: name → query ids.
        unit: EFFECT or RANK; EFFECT becomes RANK if retraining does not confirm the sizes.
        judgement: how the effects agree with retraining, by group and slice; None if nothing was retrained.
    """

    _table: ClassVar = "effects"
    effects: Array
    low: Array
    high: Array
    actual: Array
    flips: NDArray[np.intp]
    groups: Groups
    slices: Mapping[str, list[Any]]
    train: Examples
    queries: Examples
    unit: Unit
    measurement: str
    diagnostics: Mapping[str, Any]
    judgement: Judgement | None = None
    turned = RenamedAttribute("flips")

    def worst(self, name: str | None = None, k: int = 5) -> list[tuple[str, float]]:
        """The k groups that harm this slice most, as (group, effect). Without a name, the first slice."""
        require_count("k", k, least=0)
        names = list(self.slices)
        if name is not None and name not in names:
            raise KeyError(f"no slice is called {name!r}; the slices are {names}")
        column = self.effects[:, 0 if name is None else names.index(name)]
        order = [i for i in np.argsort(column, kind="stable")[:k].tolist() if column[i] < 0]
        return [(self.groups.names[i], float(column[i])) for i in order]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: one entry per group and slice, most harmful first within each slice."""
        rows = []
        for s, name in enumerate(self.slices):
            for g in np.argsort(self.effects[:, s], kind="stable").tolist():
                actual = float(self.actual[g, s])
                rows.append(
                    {
                        "slice": name,
                        "group": self.groups.names[g],
                        "size": len(self.groups.members[g]),
                        "effect": float(self.effects[g, s]),
                        "low": float(self.low[g, s]),
                        "high": float(self.high[g, s]),
                        "actual": None if math.isnan(actual) else actual,
                        "turned": None if math.isnan(actual) else int(self.flips[g, s]),
                    }
                )
        return {
            "measurement": self.measurement,
            "unit": str(self.unit),
            **self.judgement_as_dict(),
            "slices": {name: len(ids) for name, ids in self.slices.items()},
            "effects": rows,
            "warnings": list(self.diagnostics["warnings"]),
        }

    def __repr__(self) -> str:
        return (
            f"Slices({len(self.groups.names)} training groups × {len(self.slices)} slices of queries, {self.unit} of "
            f"{self.measurement}: {result_words(self.judgement)})"
        )


def _slicing(by: Slicing | Mapping[str, Any] | Sequence[str] | str, **fields: Any) -> Slicing:
    return replace(by, **fields) if isinstance(by, Slicing) else Slicing(by, **fields)


@accept_old_keywords(
    {
        "failing": ReplacedBy("by", "failing"),
        "smallest": ReplacedBy("by", "smallest"),
        "method": ReplacedBy("recipe"),
        "refits": ReplacedBy("removals"),
        **deprecated_keywords.one_seed(),
        **deprecated_keywords.stages(retrain="verify"),
    },
    {"by": BuiltBy("uw.Slicing", _slicing), **deprecated_keywords.retraining_builder(ONE_BY_ONE)},
    positional=("failing",),
)
@with_gradients()
def slices(
    model: Measurable,
    train: Examples,
    queries: Examples,
    by: Slicing | Mapping[str, Any] | Sequence[str] | str,
    *,
    recipe: Attributor | None = None,
    removals: int = 8,
    retraining: Retraining | None = None,
) -> Slices:
    """Which training groups caused the failures in these slices of queries, with intervals, checked by retraining.

    With `Influence()` and an exact Hessian, Newton steps follow the model to the optimum without the group. With
    `LeafRefit()`, boosting is replayed without the group. Other methods sum the scores of single examples.

    Args:
        model, train, queries: as for `explain`.
        by: a `Slicing` of groups and slices; or only the columns of the groups, with the queries that the model gets
            wrong as the one slice.
        recipe: the method; None for `Influence()`, or on trees for the method that suits them.
        removals: how many of the groups with the largest effects are left out in a retraining; 0 for none.
        retraining: where and how to retrain, with one seed, which also draws the bootstrap. None retrains one by one
            in this process: a few trainings of a small model take less time than starting other processes. Its
            progress is called with the stages "fit" and "retrain".

    Raises:
        ValueError, KeyError: a slice that matches no query, a column that does not fit, or columns without a group
            that can be removed.
    """
    require(model, [Measurable], "slices", train, queries)
    retraining = ONE_BY_ONE if retraining is None else retraining
    report, seed = retraining.progress or no_progress, retraining.only_seed("slices")
    if removals < 0:
        raise ValueError(f"expected removals ≥ 0, got {removals}")
    slicing = by if isinstance(by, Slicing) else Slicing(by)
    named_slices = slice_of(model, queries, slicing.failing)
    groups = groups_of(train, slicing.by, slicing.smallest, classes=bool(model.predict(queries.take([0])).classes))
    sliced = queries.select(list(dict.fromkeys(i for ids in named_slices.values() for i in ids)))
    fitted = (recipe or first_choice(model, train)).fit(model, train)
    report("fit", 1, 1)
    group_ids = {
        name: train.ids[positions].tolist() for name, positions in zip(groups.names, groups.members, strict=True)
    }
    per_query, unit, diagnostics = group_effects(fitted, group_ids, sliced)
    members_of_slices = [sliced.positions(ids) for ids in named_slices.values()]
    effects = np.stack([per_query[positions].mean(axis=0) for positions in members_of_slices], 1)
    low, high = _bootstrap(per_query, members_of_slices, seed)
    notes = [*diagnostics.get("warnings", ()), *groups.notes]
    actual, flips = np.full(effects.shape, np.nan), np.full(effects.shape, -1, dtype=np.intp)
    judgement = None
    if removals and can(model, Retrainable):
        chosen = np.argsort(-np.abs(effects).max(axis=1), kind="stable")[:removals]
        members = [groups.members[g] for g in chosen.tolist()]
        actual[chosen], flips[chosen] = _retrain(retraining, model, train, sliced, members, members_of_slices)
        judgement = judge(effects[chosen].T, actual[chosen].T, unit, float(np.abs(model.measure(sliced)).max()))
        notes += judgement.warnings(unit, "effects", of="groups")
    elif removals:
        notes.append(why_not_verified(model))
    return Slices(
        effects=effects,
        low=low,
        high=high,
        actual=actual,
        flips=flips,
        groups=groups,
        slices=named_slices,
        train=train,
        queries=queries,
        unit=unit if judgement is None else judgement.unit_after(unit),
        measurement=model.measurement,
        diagnostics={**diagnostics, "warnings": notes},
        judgement=judgement,
    )


def _bootstrap(per_query: Array, slices: Sequence[NDArray[np.intp]], seed: int) -> tuple[Array, Array]:
    """90 % percentile intervals of slice means over resampled queries, both (groups, slices) (Efron 1979)."""
    rng = np.random.default_rng(seed)
    ends = []
    for positions in slices:
        share = 1 / len(positions)
        counts = rng.multinomial(len(positions), np.full(len(positions), share), size=BOOTSTRAP_DRAWS)
        means = counts @ per_query[positions] / len(positions)
        ends.append(np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0))
    low, high = np.stack(ends, axis=2)
    return low, high


def _retrain(
    retraining: Retraining,
    model: Any,
    train: Examples,
    queries: Examples,
    members: Sequence[NDArray[np.intp]],
    slices: Sequence[NDArray[np.intp]],
) -> tuple[Array, NDArray[np.intp]]:
    """Retrain without each group: (effect on the mean of every slice, how many of its predictions flip)."""
    answers, seed = RetrainedOutputs.of(model, queries), retraining.only_seed("slices")
    tasks = [Task(seed=seed), *(Task(removed=positions, seed=seed) for positions in members)]
    base, *without = run_tasks(retraining, model, train, tasks, queries, answers)
    measurements, before = answers.read(base)
    actual = np.empty((len(members), len(slices)))
    flips = np.zeros((len(members), len(slices)), dtype=np.intp)
    for g, columns in enumerate(without):
        without_group, after = answers.read(columns)
        pairs = zip(before.predicted, after.predicted, strict=True)
        flipped = np.array([a != b for a, b in pairs]) & bool(before.classes)
        actual[g] = [(measurements - without_group)[positions].mean() for positions in slices]
        flips[g] = [flipped[positions].sum() for positions in slices]
    return actual, flips

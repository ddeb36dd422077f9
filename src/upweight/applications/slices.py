"""slices: which groups of training examples caused a slice of queries to fail."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.groups import Groups, groups_of, slice_of
from upweight.core.attributor import Attributor, Fitted
from upweight.core.deprecation import BuiltBy, ReplacedBy, accept_old_keywords
from upweight.core.examples import Examples
from upweight.core.group_removal import GroupRemoval
from upweight.core.model import Measurable, Retrainable, can, require
from upweight.core.progress import no_progress
from upweight.core.scores import Unit
from upweight.methods.registry import first_choice
from upweight.retraining import deprecated_keywords
from upweight.retraining.engine import run_tasks
from upweight.retraining.retrained_outputs import RetrainedOutputs
from upweight.retraining.retraining import ONE_BY_ONE, Retraining
from upweight.retraining.task import Task

Array = NDArray[np.float64]
LEVEL = 0.9
DRAWS = 1000  # bootstrap resamples of a slice's queries


@dataclass(frozen=True, eq=False)
class Slicing:
    """Which groups of training examples and which slices of queries are held against each other.

    Args:
        by: names of columns, or name → one value per training example; many different numbers are cut into fifths.
        failing: the slices: query ids, a mask over the queries, or name → either. None for what the model gets wrong.
        smallest: groups of fewer training examples are left out of the table.
    """

    by: Mapping[str, Any] | Sequence[str] | str
    failing: Mapping[str, Any] | Any = None
    smallest: int = 2

    def __post_init__(self) -> None:
        if self.smallest < 1:
            raise ValueError(f"expected smallest ≥ 1, got {self.smallest}")


@dataclass(frozen=True, eq=False)
class Slices:
    """A table of effects: groups of training examples × slices of queries.

    An effect is the mean measurement of the slice **with** the group minus **without** it: negative where the group
    made the slice worse.

    Attributes:
        effects: (groups, slices), predicted for the removal of the whole group.
        low, high: (groups, slices), 90 % interval over which queries happened to fall into the slice (bootstrap).
        actual: (groups, slices) by real training without the group; NaN where it was not done.
        turned: (groups, slices) how many of the slice's queries get another prediction without the group; −1 likewise.
        groups: names and members (positions in `train`), in the order of the rows.
        slices: name → query ids.
    """

    effects: Array
    low: Array
    high: Array
    actual: Array
    turned: NDArray[np.intp]
    groups: Groups
    slices: Mapping[str, list[Any]]
    train: Examples
    queries: Examples
    unit: Unit
    measurement: str
    diagnostics: Mapping[str, Any]

    def worst(self, name: str | None = None, k: int = 5) -> list[tuple[str, float]]:
        """The k groups that harm this slice most (the first slice, where none is named): (group, effect)."""
        names = list(self.slices)
        if name is not None and name not in names:
            raise KeyError(f"there is no slice {name!r}; there are {names}")
        column = self.effects[:, 0 if name is None else names.index(name)]
        order = [i for i in np.argsort(column, kind="stable")[:k].tolist() if column[i] < 0]
        return [(self.groups.names[i], float(column[i])) for i in order]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: one entry per group and slice, most harmful first within each slice."""
        rows = []
        for s, name in enumerate(self.slices):
            for g in np.argsort(self.effects[:, s], kind="stable").tolist():
                really = float(self.actual[g, s])
                rows.append(
                    {
                        "slice": name,
                        "group": self.groups.names[g],
                        "size": len(self.groups.members[g]),
                        "effect": float(self.effects[g, s]),
                        "low": float(self.low[g, s]),
                        "high": float(self.high[g, s]),
                        "actual": None if math.isnan(really) else really,
                        "turned": None if math.isnan(really) else int(self.turned[g, s]),
                    }
                )
        return {
            "measurement": self.measurement,
            "unit": str(self.unit),
            "slices": {name: len(ids) for name, ids in self.slices.items()},
            "effects": rows,
            "warnings": list(self.diagnostics["warnings"]),
        }

    def __repr__(self) -> str:
        return (
            f"Slices({len(self.groups.names)} training groups × {len(self.slices)} slices of queries, {self.unit} of "
            f"{self.measurement})"
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
    {"by": BuiltBy("uw.Slicing", _slicing), **deprecated_keywords.made(ONE_BY_ONE)},
    positional=("failing",),
)
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
    """Which training groups caused these slices of queries, with intervals, checked by real training.

    With `Influence()` whole groups are followed to the optimum without them, where the Hessian is exact; with
    `LeafRefit()` boosting is run through again without them. Other methods add up the scores of single examples.

    Args:
        model, train, queries: as for `explain`.
        by: a `Slicing`: the groups, and the slices; or the columns of the groups alone, for the queries that the model
            gets wrong as one slice.
        recipe: the method; None for `Influence()`, and on trees for what suits them.
        removals: how many of the strongest groups are really left out of a training; 0 for none.
        retraining: where and how, with one seed, which draws the bootstrap, too; None for one by one in this process
            (a few trainings of a small model take less time than starting other processes). Its progress is called
            with the stages "fit" and "retrain".

    Raises:
        ValueError, KeyError: a slice that matches nothing, a column that does not fit, no group to tell from the rest.
    """
    require(model, [Measurable], "slices", train, queries)
    retraining = ONE_BY_ONE if retraining is None else retraining
    tell, seed = retraining.progress or no_progress, retraining.only_seed("slices")
    if removals < 0:
        raise ValueError(f"expected removals ≥ 0, got {removals}")
    slicing = by if isinstance(by, Slicing) else Slicing(by)
    named = slice_of(model, queries, slicing.failing)
    groups = groups_of(train, slicing.by, slicing.smallest, classes=bool(model.predict(queries.take([0])).classes))
    asked = queries.select(list(dict.fromkeys(i for ids in named.values() for i in ids)))
    fitted = (recipe or first_choice(model, train)).fit(model, train)
    tell("fit", 1, 1)
    single, unit, diagnostics = _removed(fitted, train, asked, groups)
    where = [asked.positions(ids) for ids in named.values()]
    effects, (low, high) = np.stack([single[p].mean(axis=0) for p in where], 1), _bootstrapped(single, where, seed)
    notes = [*diagnostics.get("warnings", ()), *groups.notes]
    actual, turned = np.full(effects.shape, np.nan), np.full(effects.shape, -1, dtype=np.intp)
    if removals and can(model, Retrainable):
        chosen = np.argsort(-np.abs(effects).max(axis=1), kind="stable")[:removals]
        members = [groups.members[g] for g in chosen.tolist()]
        actual[chosen], turned[chosen] = _retrained(retraining, model, train, asked, members, where)
    elif removals:
        notes.append(f"Nothing was verified: a {type(model).__name__} cannot be trained again from here.")
    return Slices(
        effects=effects,
        low=low,
        high=high,
        actual=actual,
        turned=turned,
        groups=groups,
        slices=named,
        train=train,
        queries=queries,
        unit=unit,
        measurement=model.measurement,
        diagnostics={**diagnostics, "warnings": notes},
    )


def _removed(
    fitted: Fitted[Any, Any], train: Examples, asked: Examples, groups: Groups
) -> tuple[Array, Unit, Mapping[str, Any]]:
    """(effect of each whole group on each query (queries, groups), its unit, what the answer says of itself)."""
    if isinstance(fitted, GroupRemoval) and fitted.lacks_removal() is None:
        ids = {name: train.ids[member].tolist() for name, member in zip(groups.names, groups.members, strict=True)}
        scores = fitted.remove(ids, asked)
        return scores.values, scores.unit, scores.diagnostics
    values, answer = np.zeros((len(asked), len(groups.names))), fitted.answer(asked)
    for block, part in answer:
        for g, member in enumerate(groups.members):
            values[:, g] += part[:, member[(member >= block.start) & (member < block.stop)] - block.start].sum(axis=1)
    return values, *fitted.answered(answer.facts)


def _bootstrapped(single: Array, where: Sequence[NDArray[np.intp]], seed: int) -> tuple[Array, Array]:
    """90 % percentile intervals of slice means over resampled queries, both (groups, slices) (Efron 1979)."""
    rng = np.random.default_rng(seed)
    ends = []
    for places in where:
        counts = rng.multinomial(len(places), np.full(len(places), 1 / len(places)), size=DRAWS)
        means = counts @ single[places] / len(places)
        ends.append(np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0))
    low, high = np.stack(ends, axis=2)
    return low, high


def _retrained(
    retraining: Retraining,
    model: Any,
    train: Examples,
    asked: Examples,
    members: Sequence[NDArray[np.intp]],
    where: Sequence[NDArray[np.intp]],
) -> tuple[Array, NDArray[np.intp]]:
    """Training without each group: (effect on every slice's mean, how many of its predictions turn)."""
    answers, seed = RetrainedOutputs.of(model, asked), retraining.only_seed("slices")
    tasks = [Task(seed=seed), *(Task(removed=member, seed=seed) for member in members)]
    base, *without = run_tasks(retraining, model, train, tasks, asked, answers)
    measurements, before = answers.read(base)
    actual = np.empty((len(members), len(where)))
    turned = np.zeros((len(members), len(where)), dtype=np.intp)
    for g, columns in enumerate(without):
        measured, after = answers.read(columns)
        pairs = zip(before.predicted, after.predicted, strict=True)
        other = np.array([a != b for a, b in pairs]) & bool(before.classes)
        actual[g] = [(measurements - measured)[places].mean() for places in where]
        turned[g] = [other[places].sum() for places in where]
    return actual, turned

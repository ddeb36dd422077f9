"""slices: which groups of training examples caused a slice of queries to fail."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.explain import Progress
from upweight.applications.groups import Groups, groups_of, slice_of
from upweight.core.attributor import Attributor, Fitted
from upweight.core.examples import Examples
from upweight.core.group_removal import GroupRemoval
from upweight.core.model import Measurable, Retrainable, can, require
from upweight.core.scores import Unit
from upweight.methods.registry import first_choice

Array = NDArray[np.float64]
LEVEL = 0.9
DRAWS = 1000  # bootstrap resamples of a slice's queries


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


def slices(  # noqa: PLR0913 - four that everyone passes, five by keyword
    model: Any,
    train: Examples,
    queries: Examples,
    by: Mapping[str, Any] | Sequence[str] | str,
    failing: Mapping[str, Any] | Any = None,
    *,
    method: Attributor | None = None,
    refits: int = 8,
    smallest: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
) -> Slices:
    """Which training groups caused these slices of queries, with intervals, checked by real training.

    With `Influence()` whole groups are followed to the optimum without them, where the Hessian is exact; with
    `LeafRefit()` boosting is run through again without them. Other methods add up the scores of single examples.

    Args:
        model, train, queries: as for `explain`.
        by: names of columns, or name → one value per training example; many different numbers are cut into fifths.
        failing: the slices: query ids, a mask over the queries, or name → either. None for what the model gets wrong.
        method: the recipe; None for `Influence()`, and on trees for what suits them.
        refits: how many of the strongest groups are really left out of a training. `seed`: for it and the bootstrap.
        smallest: groups of fewer examples are left out of the table.

    Raises:
        ValueError, KeyError: a slice that matches nothing, a column that does not fit, no group to tell from the rest.
    """
    require(model, [Measurable], "slices", train, queries)
    tell = progress or (lambda stage, done, total: None)
    if refits < 0 or smallest < 1:
        raise ValueError(f"expected refits ≥ 0 and smallest ≥ 1, got {refits} and {smallest}")
    named = slice_of(model, queries, failing)
    groups = groups_of(train, by, smallest, classes=bool(model.predict(queries.take([0])).classes))
    asked = queries.select(list(dict.fromkeys(i for ids in named.values() for i in ids)))
    recipe = method or first_choice(model, train)
    fitted = recipe.fit(model, train)
    tell("fit", 1, 1)
    single = _removed(fitted, train, asked, groups)
    where = [asked.positions(ids) for ids in named.values()]
    effects, (low, high) = np.stack([single[p].mean(axis=0) for p in where], 1), _bootstrapped(single, where, seed)
    notes = [*fitted.diagnostics.get("warnings", ()), *groups.notes]
    actual, turned = np.full(effects.shape, np.nan), np.full(effects.shape, -1, dtype=np.intp)
    if refits and can(model, Retrainable):
        chosen = np.argsort(-np.abs(effects).max(axis=1), kind="stable")[:refits]
        members = [groups.members[g] for g in chosen.tolist()]
        actual[chosen], turned[chosen] = _really(model, train, asked, members, where, seed, tell)
    elif refits:
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
        unit=fitted.unit,
        measurement=model.measurement,
        diagnostics={**fitted.diagnostics, "warnings": notes},
    )


def _removed(fitted: Fitted[Any, Any], train: Examples, asked: Examples, groups: Groups) -> Array:
    """Effect of each whole group on each query, (queries, groups)."""
    if isinstance(fitted, GroupRemoval) and fitted.lacks_removal() is None:
        ids = {name: train.ids[member].tolist() for name, member in zip(groups.names, groups.members, strict=True)}
        return fitted.remove(ids, asked).values
    values = np.zeros((len(asked), len(groups.names)))
    for block, part in fitted.blocks(asked):
        for g, member in enumerate(groups.members):
            values[:, g] += part[:, member[(member >= block.start) & (member < block.stop)] - block.start].sum(axis=1)
    return values


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


def _really(
    model: Any,
    train: Examples,
    asked: Examples,
    members: Sequence[NDArray[np.intp]],
    where: Sequence[NDArray[np.intp]],
    seed: int,
    tell: Progress,
) -> tuple[Array, NDArray[np.intp]]:
    """Training without each group: (effect on every slice's mean, how many of its predictions turn)."""
    base = model.retrain(train, np.ones(len(train)), seed)
    measured, said = base.measure(asked), base.predict(asked)
    actual = np.empty((len(members), len(where)))
    turned = np.zeros((len(members), len(where)), dtype=np.intp)
    for g, member in enumerate(members):
        tell("verify", g, len(members))
        weights = np.ones(len(train))
        weights[member] = 0.0
        without = model.retrain(train, weights, seed)
        effect = measured - without.measure(asked)
        pairs = zip(said.predicted, without.predict(asked).predicted, strict=True)
        other = np.array([a != b for a, b in pairs]) & bool(said.classes)
        actual[g] = [effect[places].mean() for places in where]
        turned[g] = [other[places].sum() for places in where]
    tell("verify", len(members), len(members))
    return actual, turned

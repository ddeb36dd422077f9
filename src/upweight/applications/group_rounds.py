"""The rounds of `discover`: search a group, retrain without it, and search the next one without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.applications.conditions import Conditions, conditions_of
from upweight.applications.discovery import DiscoveredGroup
from upweight.applications.group_evidence import GroupEvidence, nat_of
from upweight.applications.group_search import Candidate, GroupSearch, t_values
from upweight.core.attributor import Attributor, Fitted
from upweight.core.blocks import require_count
from upweight.core.capability_checks import can
from upweight.core.examples import Examples
from upweight.core.forgettable import Forgettable
from upweight.core.group_removal import GroupRemoval
from upweight.core.scores import Unit
from upweight.core.weights import weighted_positions

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
INTERVAL_LEVEL = 0.9  # of intervals
CANDIDATES_RETRAINED = 2  # groups of one round that are retrained
TYPICAL_NAMED = 8  # ids that are named
TESTED_UP_TO = 1.0  # mean sizes of a measurement at which the rise of a query is cut in the test


@dataclass(frozen=True, kw_only=True)
class GroupDiscovery:
    """How `discover` searches and what it reports.

    Args:
        most: groups at most.
        smallest, largest: size of a group as a share of the training examples.
        level: the probability with which one group is reported in a round though no group has an effect.
        least: the smallest rise of the mean measurement that is reported, as a share of its size.
        seed: of the split of the queries and of clusters.

    Raises ValueError for shares outside of (0, 1), or a smallest group that is not smaller than the largest.
    """

    most: int = 5
    smallest: float = 0.01
    largest: float = 0.15
    level: float = 0.05
    least: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        require_count("most", self.most)
        for name in ("smallest", "largest", "level", "least"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"expected {name} between 0 and 1, got {getattr(self, name)}")
        if self.smallest >= self.largest:
            raise ValueError(f"expected smallest < largest, got {self.smallest} and {self.largest}")


class Found(NamedTuple):
    """The groups that a search proposes, the fitted method, its scores (queries, n) and their unit."""

    candidates: list[Candidate]
    fitted: Fitted[Any, Any]
    scores: Array
    unit: Unit


@dataclass(eq=False)
class GroupRounds:
    """The search for groups, one after the other: the model and the training set without the groups found so far.

    Attributes:
        present: positions of the remaining examples in the whole training set.
        conditions: on all training examples.
    """

    model: Any
    train: Examples
    present: NDArray[np.intp]
    conditions: Conditions
    searched: Examples
    confirming: Examples
    recipe: Attributor
    search: GroupDiscovery
    groups: list[DiscoveredGroup]
    rejected: list[DiscoveredGroup]
    unit: Unit = Unit.RANK
    trainings: int = 0

    @classmethod
    def start(
        cls,
        model: Any,
        train: Examples,
        queries: Examples,
        recipe: Attributor,
        columns: Mapping[str, Any],
        search: GroupDiscovery,
    ) -> GroupRounds:
        """The state before the search, with the queries split at random into halves."""
        order = np.random.default_rng(search.seed).permutation(len(queries))
        half = len(queries) // 2
        conditions = conditions_of(model, train, columns, search.seed, fine=True)
        searched, confirming = queries.take(np.sort(order[:half])), queries.take(np.sort(order[half:]))
        present = np.arange(len(train))
        return cls(model, train, present, conditions, searched, confirming, recipe, search, [], [])

    @property
    def can_retrain(self) -> bool:
        """Whether groups can be confirmed."""
        return isinstance(self.model, Forgettable) and can(self.model, Forgettable)

    def next_group(self) -> bool:
        """Search one more group and retrain without it. False if no group is confirmed."""
        found = self._searched(self.model, self.train, self.present)
        self.unit = found.unit
        if not self.can_retrain:
            self.groups += [self._described(c, found, None) for c in found.candidates]
            return False
        for place, candidate in enumerate(found.candidates):
            retrained = self._without(candidate.mask)
            if retrained is None:
                continue
            if self._confirms(candidate, found, retrained):
                return True
            if place == 0 and candidate.stands_out:
                return self._hidden(candidate, found, retrained)
        return False

    def _hidden(self, rejected: Candidate, found: Found, retrained: Any) -> bool:
        """Try the best group of a search without a rejected one that stands out, which may hide others."""
        kept = np.flatnonzero(~rejected.mask)
        behind = self._searched(retrained, self.train.take(kept), self.present[kept]).candidates[:1]
        for candidate in behind:
            falls = np.zeros_like(rejected.falls)
            falls[kept] = candidate.falls
            rule = list(candidate.conditions)
            mask = np.asarray(self.conditions.fulfilled[rule][:, self.present].all(axis=0))
            alone = self._without(mask)
            if alone is not None and self._confirms(replace(candidate, mask=mask, falls=falls), found, alone):
                return True
        return False

    def _searched(self, model: Any, train: Examples, present: NDArray[np.intp]) -> Found:
        """The groups to try for this model and its training set."""
        fitted = self.recipe.fit(model, train)
        scores = fitted.attribute(self.searched)
        n = len(weighted_positions(train))
        candidates = GroupSearch(
            self.conditions.take(present),
            GroupEvidence(fitted, self.searched, scores.values, nat_of(model, train)),
            max(5, round(self.search.smallest * n)),
            round(self.search.largest * n),
            lambda mask: _keeps_classes(train.y, mask),
        ).candidates(CANDIDATES_RETRAINED if self.can_retrain else self.search.most)
        return Found(candidates, fitted, scores.values, scores.unit)

    def _confirms(self, candidate: Candidate, found: Found, retrained: Any) -> bool:
        """Whether the group is confirmed, and then removed."""
        group = self._described(candidate, found, retrained)
        if group.confirmed:
            self.groups.append(group)
            self.model, self.train = retrained, self.train.take(~candidate.mask)
            self.present = self.present[~candidate.mask]
        else:
            self.rejected.append(group)
        return group.confirmed

    def _without(self, mask: Mask) -> Any:
        """The model without these examples; None if it cannot be trained without them."""
        try:
            unlearned = self.model.forget(self.train, ~mask)
            if not unlearned.route.is_deletion:
                unlearned = self.model.forget(self.train, ~mask, refit=True)
        except ValueError:
            return None
        self.trainings += 1
        return unlearned.model

    def _described(self, candidate: Candidate, found: Found, retrained: Any) -> DiscoveredGroup:
        """The group in words, with its effect on the queries that were not searched."""
        from scipy.stats import t as student

        members = np.flatnonzero(candidate.mask)
        strongest = members[np.argsort(found.scores[:, members].mean(axis=0), kind="stable")]
        predicted = _predicted(found.fitted, candidate.mask, self.confirming)
        effect, interval, p, helped = np.nan, (np.nan, np.nan), np.nan, np.empty(0, dtype=np.intp)
        if retrained is not None:
            rises = retrained.measure(self.confirming) - self.model.measure(self.confirming)
            effect, freedom = float(rises.mean()), len(rises) - 1
            half = float(rises.std(ddof=1) / np.sqrt(len(rises)) * student.ppf(0.5 + INTERVAL_LEVEL / 2, freedom))
            interval = (effect - half, effect + half)
            p = self._p(rises, candidate.stands_out)
            helped = np.argsort(-rises, kind="stable")[:TYPICAL_NAMED]
        scale = float(np.abs(self.model.measure(self.confirming)).mean())
        return DiscoveredGroup(
            conditions=tuple(self.conditions.names[j] for j in candidate.conditions),
            ids=tuple(self.train.ids[members].tolist()),
            labels=self._labels(members),
            typical=tuple(self.train.ids[strongest[:TYPICAL_NAMED]].tolist()),
            predicted=predicted,
            effect=effect,
            interval=interval,
            p=p,
            helped=tuple(self.confirming.ids[helped].tolist()),
            confirmed=bool(p <= self.search.level / CANDIDATES_RETRAINED and effect >= self.search.least * scale),
        )

    def _p(self, rises: Array, stands_out: bool) -> float:
        """The probability of such rises of the confirming queries if the group had no effect.

        Of a group that stands out in the training set it is one over the likelihood ratio of the models without and
        with it, a bound by Markov's inequality; of another group that of a t-test.
        """
        from scipy.stats import t as student

        nat = nat_of(self.model, self.train) if stands_out else None
        if nat is not None:
            return float(np.exp(-max(0.0, rises.sum() / nat)))
        bound = TESTED_UP_TO * float(np.abs(self.model.measure(self.confirming)).mean())
        return float(student.sf(t_values(np.clip(rises, -bound, bound)[:, None])[0], len(rises) - 1))

    def _labels(self, members: NDArray[np.intp]) -> dict[Any, int]:
        y = self.train.y
        if y is None or y.ndim > 1 or y.dtype.kind == "f":
            return {}
        labels, counts = np.unique(y[members], return_counts=True)
        return {
            self.train.labels.get(label, label): int(count)
            for label, count in zip(labels.tolist(), counts.tolist(), strict=True)
        }

    def warnings(self) -> list[str]:
        """A warning if no group could be confirmed."""
        if self.can_retrain:
            return []
        return ["This model cannot be retrained: the groups are those of the scores, and none of them is confirmed."]


def _keeps_classes(y: NDArray[Any] | None, mask: Mask) -> bool:
    """Whether some examples of every class stay."""
    return y is None or y.ndim > 1 or y.dtype.kind == "f" or len(np.unique(y[~mask])) == len(np.unique(y))


def _predicted(fitted: Fitted[Any, Any], mask: Mask, queries: Examples) -> float:
    """The mean rise of the queries without the group, by the best that the method can do."""
    ids = fitted.train.ids[mask].tolist()
    if isinstance(fitted, GroupRemoval) and fitted.lacks_removal() is None:
        return -float(fitted.remove({"group": ids}, queries).values.mean())
    return -float(fitted.attribute(queries).values[:, mask].sum(axis=1).mean())

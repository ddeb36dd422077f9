"""The search for a group of training examples without which queries would do better, over conditions in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.applications.conditions import Conditions

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
BEAM_WIDTH = 6  # groups that are extended by another condition
FIRST = 200  # groups of one condition whose effects are computed, the largest first-order sums
EXACT = 48  # the same for groups of more conditions
MAX_CONDITIONS = 3
PENALTY = 0.25  # power of the size by which effects are divided to compare groups
SIMPLER = 0.8  # share of the quality that a group with fewer conditions has to keep
ALIKE = 0.8  # share of the smaller group that is in both, from which the simpler group stands for both
SAME_GROUP = 0.7  # Jaccard index of the members from which two groups count as one
LEAST_T = 2.0  # mean effect over its standard error


@dataclass(frozen=True, eq=False)
class Candidate:
    """A group: its conditions, its members, and the mean effect of its removal on the queries of the search.

    Attributes:
        conditions: positions in the `Conditions`.
        mask: (n,) the examples of the group.
        effect: mean rise of the measurement without the group.
        t: the mean divided by its standard error over the queries.
    """

    conditions: tuple[int, ...]
    mask: Mask
    effect: float
    t: float

    @property
    def quality(self) -> float:
        """The effect over the fourth root of the size: members that do nothing make a group worse."""
        return self.effect / float(max(1, self.mask.sum()) ** PENALTY)


@dataclass(frozen=True, eq=False)
class GroupSearch:
    """Beam search over conjunctions of conditions.

    Attributes:
        conditions: on the remaining training examples.
        scores: (queries, n) the effect of each example, summed to find which groups to follow.
        effects: (groups, n) → (queries, groups), the rise of the measurement without each group.
        smallest, largest: sizes of groups.
        allowed: whether a group may be removed, for a mask (n,).
    """

    conditions: Conditions
    scores: Array
    effects: Callable[[Mask], Array]
    smallest: int
    largest: int
    allowed: Callable[[Mask], bool]

    def candidates(self) -> list[Candidate]:
        """Groups with an effect, the best first; of groups with nearly the same members, the best one."""
        start = Candidate((), np.ones(self.conditions.fulfilled.shape[1], dtype=bool), 0.0, 0.0)
        beam, candidates = [start], dict[bytes, Candidate]()
        for depth in range(MAX_CONDITIONS):
            extended = self._extended(beam, FIRST if depth == 0 else EXACT)
            if not extended:
                break
            candidates |= {candidate.mask.tobytes(): candidate for candidate in extended if self._fits(candidate.mask)}
            beam = _distinct(sorted(extended, key=lambda c: -c.quality))[:BEAM_WIDTH]
        good = sorted((c for c in candidates.values() if c.t >= LEAST_T and c.effect > 0), key=lambda c: -c.quality)
        return _distinct([self._simplest(c, good) for c in good])

    def _fits(self, mask: Mask) -> bool:
        return self.smallest <= int(mask.sum()) <= self.largest and self.allowed(mask)

    def _extended(self, beam: list[Candidate], count: int) -> list[Candidate]:
        """Every group with one more condition; sums of scores choose those whose effect is followed."""
        drafts: dict[bytes, tuple[tuple[int, ...], Mask]] = {}
        for parent in beam:
            about = {self.conditions.columns[j] for j in parent.conditions}
            members = self.conditions.fulfilled & parent.mask
            sizes, whole = members.sum(axis=1), int(parent.mask.sum())
            for j in np.flatnonzero((sizes >= self.smallest) & (sizes < whole)).tolist():
                if self.conditions.columns[j] not in about:
                    drafts.setdefault(members[j].tobytes(), ((*parent.conditions, j), members[j]))
        if not drafts:
            return []
        rules, masks = zip(*drafts.values(), strict=True)
        stacked = np.stack(masks)
        sums = -(self.scores @ stacked.T.astype(np.float64))
        sizes = stacked.sum(axis=1) ** PENALTY
        chosen = np.argsort(-sums.mean(axis=0) / sizes, kind="stable")[:count]
        chosen = np.array([j for j in chosen.tolist() if self.allowed(stacked[j])], dtype=np.intp)
        if not len(chosen):
            return []
        effects = self.effects(stacked[chosen])
        means, ts = effects.mean(axis=0), t_values(effects)
        return [
            Candidate(rules[j], stacked[j], float(mean), float(t))
            for j, mean, t in zip(chosen.tolist(), means, ts, strict=True)
        ]

    def _simplest(self, candidate: Candidate, good: list[Candidate]) -> Candidate:
        """Among groups that are about as good and share its members, the one of fewest conditions, then the best."""
        simpler = [
            other
            for other in good
            if self._complexity(other) < self._complexity(candidate)
            and other.quality >= SIMPLER * candidate.quality
            and overlap(other.mask, candidate.mask) >= ALIKE
        ]
        return min([candidate, *simpler], key=lambda other: (self._complexity(other), -other.quality))

    def _complexity(self, candidate: Candidate) -> int:
        """The number of conditions; one on a cluster, which has no words of its own, counts twice."""
        return sum(2 if "clusters of features" in self.conditions.columns[j] else 1 for j in candidate.conditions)


def t_values(effects: Array) -> Array:
    """Means over queries divided by their standard errors, (groups,), for effects (queries, groups)."""
    errors = effects.std(axis=0, ddof=1) / np.sqrt(len(effects))
    return np.asarray(effects.mean(axis=0) / np.maximum(errors, 1e-300))


def jaccard(first: Mask, second: Mask) -> float:
    """Size of the common part over that of the union."""
    return float((first & second).sum() / max(1, (first | second).sum()))


def overlap(first: Mask, second: Mask) -> float:
    """Size of the common part over that of the smaller one."""
    return float((first & second).sum() / max(1, min(first.sum(), second.sum())))


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """The candidates without those that have about the members of an earlier one."""
    distinct: list[Candidate] = []
    for candidate in candidates:
        if all(jaccard(candidate.mask, other.mask) < SAME_GROUP for other in distinct):
            distinct.append(candidate)
    return distinct

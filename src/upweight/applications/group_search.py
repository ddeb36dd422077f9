"""The search for a group of training examples that disagrees with the queries, over conditions in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from upweight.applications.conditions import LABEL, Conditions
from upweight.applications.group_evidence import GroupEvidence

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
BEAM_WIDTH = 6  # groups that are extended by another condition
LOOSE = 2  # times the largest size that such a group may have
FIRST = 400  # groups of one condition that are followed
EXACT = 48  # the same for groups of more conditions
NEAR = 21  # thresholds of a column that are compared in the end
MAX_CONDITIONS = 3
STANDS_OUT = 5.0  # nats that members lose without the group over the root of their number, from which it stands out
LEAST_T = 2.0  # mean rise over its standard error from which another group is suspect
HELPFUL_T = -1.5  # the same below which the queries speak for a group
SIMPLER = 0.8  # share of the quality that a group with fewer conditions has to keep
ALIKE = 0.8  # share of the smaller group that is in both, from which the simpler group stands for both
SAME_GROUP = 0.7  # Jaccard index of the members from which two groups count as one
MOSTLY = 0.4  # share of the smaller group in both from which only the better one is retrained


@dataclass(frozen=True, eq=False)
class Candidate:
    """A group: its conditions, its members, and the evidence against it.

    Attributes:
        conditions: positions in the `Conditions`.
        mask: (n,) the examples of the group.
        rises: (queries,) the rise of each query of the search without the group.
        falls: (n,) the fall of each training example without the group; 0 if it is unknown.
    """

    conditions: tuple[int, ...]
    mask: Mask
    rises: Array
    falls: Array

    @property
    def quality(self) -> float:
        """What the queries gain and the members lose without the group, over the root of its size."""
        return self.standing + float(self.rises.sum() / np.sqrt(self.mask.sum()))

    @property
    def standing(self) -> float:
        """What the members lose without the group, over the root of its size."""
        return float(self.falls[self.mask].sum() / np.sqrt(self.mask.sum()))

    @property
    def stands_out(self) -> bool:
        """Whether its members disagree with the other training examples by more than chance gives."""
        return bool(self.falls.any()) and self.quality >= STANDS_OUT

    @property
    def t(self) -> float:
        """The mean rise over its standard error."""
        return float(t_values(self.rises[:, None])[0])


@dataclass(frozen=True, eq=False)
class GroupSearch:
    """A beam search over conjunctions of conditions.

    Attributes:
        conditions: on the remaining training examples.
        evidence: what is gained and lost without groups.
        smallest, largest: sizes of groups.
        allowed: whether a group may be removed, for a mask (n,).
    """

    conditions: Conditions
    evidence: GroupEvidence
    smallest: int
    largest: int
    allowed: Callable[[Mask], bool]

    def candidates(self, most: int) -> list[Candidate]:
        """At most this many suspect groups, the best first; of groups with nearly the same members, the best one."""
        n = self.conditions.fulfilled.shape[1]
        beam = [Candidate((), np.ones(n, dtype=bool), np.zeros(1), np.zeros(n))]
        found = dict[bytes, Candidate]()
        for depth in range(MAX_CONDITIONS):
            extended = self._extended(beam, FIRST if depth == 0 else EXACT)
            for candidate in extended:
                if self._fits(candidate.mask):
                    found.setdefault(candidate.mask.tobytes(), candidate)
            beam = _distinct(sorted(extended, key=lambda c: -c.quality), jaccard, SAME_GROUP)[:BEAM_WIDTH]
        good = sorted(
            (c for c in found.values() if c.quality > 0 and (c.stands_out or c.t >= LEAST_T)), key=lambda c: -c.quality
        )
        distinct = _distinct([self._guilty(self._simplest(c, good), found.values()) for c in good], overlap, MOSTLY)
        suspect = [self._refined(c) for c in distinct if c.t >= HELPFUL_T][:most]
        return _distinct(sorted(suspect, key=lambda c: -c.quality), overlap, MOSTLY)

    def _fits(self, mask: Mask) -> bool:
        return self.smallest <= int(mask.sum()) <= self.largest and self.allowed(mask)

    def _extended(self, beam: list[Candidate], count: int) -> list[Candidate]:
        """The groups with one more condition; to be followed, those whose members the group without it harms most."""
        drafts: dict[bytes, tuple[tuple[int, ...], Mask, float]] = {}
        for parent in beam:
            about = self._about(parent) | {LABEL}
            members = self.conditions.fulfilled & parent.mask
            sizes, whole = members.sum(axis=1), int(parent.mask.sum())
            drafted = members @ (parent.falls + self.evidence.harm) / np.maximum(sizes, 1) ** 0.5
            fitting = (
                ~self.conditions.fine & (sizes >= self.smallest) & (sizes < whole) & (sizes <= LOOSE * self.largest)
            )
            for j in np.flatnonzero(fitting).tolist():
                if self.conditions.columns[j] not in about:
                    drafts.setdefault(members[j].tobytes(), ((*parent.conditions, j), members[j], drafted[j]))
        ordered = sorted(drafts.values(), key=lambda draft: -draft[2])[:count]
        return self._followed([(rule, mask) for rule, mask, _ in ordered])

    def _followed(self, drafts: list[tuple[tuple[int, ...], Mask]]) -> list[Candidate]:
        drafts = [(rule, mask) for rule, mask in drafts if self.allowed(mask)]
        if not drafts:
            return []
        effects = self.evidence.of(np.stack([mask for _, mask in drafts]))
        candidates = [Candidate(*draft, *both) for draft, both in zip(drafts, zip(*effects, strict=True), strict=True)]
        return [candidate for candidate in candidates if np.isfinite(candidate.quality)]

    def _refined(self, candidate: Candidate) -> Candidate:
        """The candidate with the best thresholds near to its own: one condition after the other, until none changes."""
        unchanged, place = 0, 0
        while unchanged < len(candidate.conditions):
            better = max([candidate, *self._near(candidate, place)], key=lambda c: c.quality)
            unchanged = unchanged + 1 if better is candidate else 1
            candidate, place = better, (place + 1) % len(candidate.conditions)
        return candidate

    def _near(self, candidate: Candidate, place: int) -> list[Candidate]:
        """The candidate with other thresholds in one of its conditions."""
        rule, fulfilled = candidate.conditions, self.conditions.fulfilled
        j, rest = rule[place], fulfilled[np.delete(rule, place)].all(axis=0)
        same = np.flatnonzero(np.array(self.conditions.columns) == self.conditions.columns[j])
        distances = np.abs(fulfilled[same].sum(axis=1) - fulfilled[j].sum())
        near = same[np.argsort(distances, kind="stable")[:NEAR]].tolist()
        drafts = [((*rule[:place], i, *rule[place + 1 :]), rest & fulfilled[i]) for i in near if i != j]
        return self._followed([(rule, mask) for rule, mask in drafts if self._fits(mask)])

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

    def _guilty(self, candidate: Candidate, found: Iterable[Candidate]) -> Candidate:
        """The group of as few conditions on other columns that the falls without the candidate are best described by.

        With members of a group others may be removed that only share a value with them, and would else speak for them.
        """
        others = [
            replace(other, falls=candidate.falls)
            for other in found
            if self._complexity(other) <= self._complexity(candidate)
            and self._about(other) != self._about(candidate)
            and overlap(other.mask, candidate.mask) >= ALIKE
        ]
        return max([candidate, *others], key=lambda other: other.standing)

    def _about(self, candidate: Candidate) -> set[str]:
        return {self.conditions.columns[j] for j in candidate.conditions}

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


def _distinct(candidates: list[Candidate], alike: Callable[[Mask, Mask], float], least: float) -> list[Candidate]:
    """The candidates without those that have about the members of an earlier one."""
    distinct: list[Candidate] = []
    for candidate in candidates:
        if all(alike(candidate.mask, other.mask) < least for other in distinct):
            distinct.append(candidate)
    return distinct

"""The checks of a prediction's support, each a test with a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from upweight.applications.audit_results import UNKNOWN, GroupColumn, SupportCheck
from upweight.applications.nearest_copies import NearestExample
from upweight.applications.support import Ground, Support
from upweight.applications.support_chance import Draws, beside_peers, beside_reference
from upweight.core.examples import Examples

Array = NDArray[np.float64]
Positions = NDArray[np.intp]
UNUSUAL_Z = 2.0  # median of a class, above which a note says what is usual


@dataclass(frozen=True, eq=False)
class Reference:
    """The reference: the support of training examples that were attributed in the same way.

    Attributes:
        tails: of each check by chance, (examples,); NaN where it cannot be made.
        labels: whose support it is; None if the scores are of no label.
    """

    tails: Mapping[str, Array]
    labels: Sequence[object] | None


def checks_by_chance(ground: Ground, supports: Sequence[Support]) -> dict[str, list[SupportCheck | None]]:
    """Check → for every support how surprising it is by chance; None where the check cannot be made."""
    draws, checks = Draws(ground.strata), dict[str, list[SupportCheck | None]]()
    if ground.codes and any(support.label is not None for support in supports):
        unstratified = Draws(np.minimum(ground.strata, 0))
        checks["label"] = [_label_check(ground, unstratified, support) for support in supports]
    for place, column in enumerate(ground.columns):
        members = _members(ground.strata, column, len(draws.sizes))
        checks[column.column] = [
            _group_check(draws, column, members, support.own_groups[place], support.strongest) for support in supports
        ]
    if ground.space is not None:
        checks["distance"] = [_distance_check(draws, support) for support in supports]
    return checks


def tails_of(checks: Mapping[str, Sequence[SupportCheck | None]]) -> dict[str, Array]:
    """The tails by chance, NaN where a check could not be made."""
    return {
        name: np.array([np.nan if check is None else check.by_chance for check in column])
        for name, column in checks.items()
    }


def checks_of(
    ground: Ground,
    supports: Sequence[Support],
    nearest: Sequence[NearestExample | None],
    reference: Reference | None,
    train: Examples,
    level: float,
) -> list[list[SupportCheck]]:
    """The checks of every prediction. Those that cannot be made are left out."""
    by_name = checks_by_chance(ground, supports)
    tails, labels = tails_of(by_name), [support.label for support in supports]
    for name, checks in by_name.items():
        by_name[name] = _beside(name, checks, tails[name], labels, reference)
    by_name["copy"] = [None if example is None else _copy_check(train, example) for example in nearest]
    result = []
    for place in range(len(supports)):
        present = [check for column in by_name.values() if (check := column[place]) is not None]
        result.append([replace(check, surprising=check.tail * len(present) <= level) for check in present])
    return result


def typical_support(checks: Sequence[Sequence[SupportCheck]]) -> list[str]:
    """Sentences about support that is far from chance in most predictions of a class, each once."""
    return list(dict.fromkeys(check.usual for of_one in checks for check in of_one if check.usual))


def _beside(
    name: str,
    checks: Sequence[SupportCheck | None],
    by_chance: Array,
    labels: Sequence[object],
    reference: Reference | None,
) -> list[SupportCheck | None]:
    """The checks beside the other predictions of their classes, and beside the reference if there is one."""
    codes = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    classes = np.array([codes[label] for label in labels], dtype=np.intp)
    tails, medians = beside_peers(by_chance, classes)
    if reference is not None and name in reference.tails:
        of_reference = reference.labels or [None] * len(reference.tails[name])
        known = np.array([codes.get(label, len(codes)) for label in of_reference], dtype=np.intp)
        tails = np.fmax(tails, beside_reference(by_chance, classes, reference.tails[name], known))
    result: list[SupportCheck | None] = []
    for place, check in enumerate(checks):
        usual = ""
        if check is not None and medians[place] > UNUSUAL_Z:
            whose = "all queries" if labels[place] is None else f"class {labels[place]}"
            what = {"label": "have other labels", "distance": "are far away"}.get(name, f"are of another {name}")
            usual = (
                f"In most predictions of {whose}, more of the strongest proponents {what} than by chance. Single "
                "predictions are flagged only for what goes beyond that."
            )
        result.append(None if check is None else replace(check, tail=float(tails[place]), usual=usual))
    return result


def _members(strata: Positions, column: GroupColumn, count: int) -> Positions:
    """How many training examples of each group are in each stratum, (groups, strata)."""
    members = np.zeros((len(column.names), count), dtype=np.intp)
    np.add.at(members, (column.train[strata >= 0], strata[strata >= 0]), 1)
    return members


def _label_check(ground: Ground, draws: Draws, support: Support) -> SupportCheck | None:
    if not len(support.strongest):
        return None
    others = (ground.strata != ground.stratum_of(support.label)) & (ground.strata >= 0)
    outside = others[support.strongest]
    tail, expected = draws.count_tail(np.array([others.sum()]), np.zeros(len(outside), dtype=np.intp), outside)
    sentence = (
        f"{_of_strongest(int(outside.sum()), len(outside))} not of label {support.label}, {expected:.1f} by chance"
    )
    return SupportCheck("label", tail, tail, sentence)


def _group_check(
    draws: Draws, column: GroupColumn, members: Positions, own_group: int, strongest: Positions
) -> SupportCheck | None:
    """The most surprising group other than the prediction's own, with Šidák's correction for the number of groups."""
    others = int((members.sum(axis=1) > 0).sum()) - int(own_group != UNKNOWN and members[own_group].any())
    if not len(strongest) or not others:
        return None
    strata, groups = draws.strata[strongest], column.train[strongest]
    best = (1.0, 0.0, UNKNOWN)
    for group in np.unique(groups[groups != own_group]).tolist():
        best = min(best, (*draws.count_tail(members[group], strata, groups == group), group))
    tail, expected, group = best
    corrected = float(-np.expm1(others * np.log1p(-min(tail, 1 - 1e-16))))
    if group == UNKNOWN:
        return SupportCheck(column.column, 1.0, 1.0, "")
    count = int((groups == group).sum())
    whose = "" if own_group == UNKNOWN else f"; its own is {column.named(own_group)}"
    sentence = f"{_of_strongest(count, len(groups))} of {column.named(group)}, {expected:.1f} by chance{whose}"
    return SupportCheck(column.column, corrected, corrected, sentence)


def _distance_check(draws: Draws, support: Support) -> SupportCheck | None:
    if support.ranks is None or not len(support.ranks):
        return None
    tail = draws.rank_tail(support.ranks, draws.strata[support.strongest])
    sentence = (
        f"Its {_strongest(len(support.ranks))} farther from it than {support.ranks.mean():.0%} of the training "
        "examples of their labels, 50% by chance"
    )
    return SupportCheck("distance", tail, tail, sentence)


def _copy_check(train: Examples, nearest: NearestExample) -> SupportCheck:
    tail = nearest.tail if nearest.is_copy else 1.0
    how = "equal" if nearest.is_equal else f"nearly equal (at {nearest.distance:.1%} of the usual distance)"
    sentence = f"Training example {train.ids[nearest.position].item()} is {how} to it"
    return SupportCheck("copy", tail, tail, sentence)


def _strongest(count: int) -> str:
    return "strongest proponent is" if count == 1 else f"{count} strongest proponents are"


def _of_strongest(count: int, drawn: int) -> str:
    """`Its 20 strongest proponents are all`, `18 of its 20 strongest proponents are`."""
    if drawn == 1:
        return "Its only proponent is"
    return (
        f"Its {drawn} strongest proponents are all"
        if count == drawn
        else f"{count} of its {drawn} strongest proponents are"
    )

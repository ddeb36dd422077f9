"""The checks of a prediction's support, each a test with a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from upweight.applications.explain import Explanation
from upweight.applications.group_columns import GroupColumn
from upweight.applications.support import Support, strata_of
from upweight.applications.support_chance import Draws, beside_peers
from upweight.applications.supported_labels import train_labels

Array = NDArray[np.float64]
Positions = NDArray[np.intp]
UNUSUAL_Z = 2.0  # median of a class, above which a note says what is usual


@dataclass(frozen=True)
class SupportCheck:
    """One check of one prediction.

    Attributes:
        name: `copy`, `label`, `distance`, or the column of groups.
        by_chance: the probability, by chance, of support at least as far from what is expected.
        tail: the same beside the other predictions of the class; never less than `by_chance`.
        sentence: what was found, without a full stop.
        surprising: whether it is significant, corrected for the number of checks.
        usual: what is usual in the predictions of the class, if that is far from chance; else "".
    """

    name: str
    by_chance: float
    tail: float
    sentence: str
    surprising: bool = False
    usual: str = ""


def checks_of(
    explained: Explanation,
    supports: Sequence[Support],
    columns: Sequence[GroupColumn],
    labels: Sequence[object] | None,
    level: float,
) -> list[list[SupportCheck]]:
    """The checks of every prediction. Those that cannot be made are left out."""
    strata, names = strata_of(explained), train_labels(explained)
    draws = Draws(strata)
    by_name: dict[str, list[SupportCheck | None]] = {}
    if names is not None and labels is not None:
        unstratified = Draws(np.where(strata < 0, strata, 0))
        by_name["label"] = [_label_check(unstratified, names, support) for support in supports]
    for column in columns:
        by_name[column.column] = [_group_check(draws, column, support) for support in supports]
    by_name["distance"] = [_distance_check(draws, support) for support in supports]
    codes = {label: code for code, label in enumerate(dict.fromkeys(labels or ()))}
    classes = np.array([0 if labels is None else codes[labels[s.query]] for s in supports], dtype=np.intp)
    beside = {name: _beside(name, checks, classes, labels) for name, checks in by_name.items()}
    beside["copy"] = [_copy_check(explained, support) for support in supports]
    result = []
    for place in range(len(supports)):
        checks = [check for column in beside.values() if (check := column[place]) is not None]
        result.append([replace(check, surprising=check.tail * len(checks) <= level) for check in checks])
    return result


def typical_support(checks: Sequence[Sequence[SupportCheck]]) -> list[str]:
    """Sentences about support that is far from chance in most predictions of a class, each once."""
    return list(dict.fromkeys(check.usual for of_one in checks for check in of_one if check.usual))


def _beside(
    name: str, checks: Sequence[SupportCheck | None], classes: Positions, labels: Sequence[object] | None
) -> list[SupportCheck | None]:
    tails = np.array([np.nan if check is None else check.by_chance for check in checks])
    beside, medians = beside_peers(tails, classes)
    result: list[SupportCheck | None] = []
    for place, check in enumerate(checks):
        usual = ""
        if check is not None and medians[place] > UNUSUAL_Z:
            whose = "all queries" if labels is None else f"class {labels[place]}"
            what = {"label": "have other labels", "distance": "are far away"}.get(name, f"are of another {name}")
            usual = (
                f"In most predictions of {whose}, more of the strongest proponents {what} than by chance. Single "
                "predictions are flagged only for what goes beyond that."
            )
        result.append(None if check is None else replace(check, tail=float(beside[place]), usual=usual))
    return result


def _label_check(draws: Draws, names: NDArray[np.object_], support: Support) -> SupportCheck | None:
    if not len(support.strongest):
        return None
    others = (names != support.label) & (draws.strata >= 0)
    outside = others[support.strongest]
    tail, expected = draws.count_tail(np.array([others.sum()]), _pairs(np.zeros(len(outside), dtype=np.intp), outside))
    sentence = (
        f"{_of_strongest(int(outside.sum()), len(outside))} not of label {support.label}, {expected:.1f} by chance"
    )
    return SupportCheck("label", tail, tail, sentence)


def _group_check(draws: Draws, column: GroupColumn, support: Support) -> SupportCheck | None:
    """The most surprising group other than the query's own, with Šidák's correction for the number of groups."""
    own_group = int(column.queries[support.query])
    if not len(support.strongest):
        return None
    drawn_strata, drawn_groups = draws.strata[support.strongest], column.train[support.strongest]
    present = np.unique(column.train[draws.strata >= 0])
    candidates = [int(group) for group in np.unique(drawn_groups) if group != own_group]
    others = int((present != own_group).sum())
    if not others:
        return None
    best = (1.0, 0.0, -1)
    for group in candidates:
        inside = (column.train == group) & (draws.strata >= 0)
        members = np.bincount(draws.strata[inside], minlength=len(draws.sizes))
        tail, expected = draws.count_tail(members, _pairs(drawn_strata, drawn_groups == group))
        best = min(best, (tail, expected, group))
    tail, expected, group = best
    corrected = float(-np.expm1(others * np.log1p(-min(tail, 1 - 1e-16))))
    if group < 0:
        return SupportCheck(column.column, 1.0, 1.0, "")
    count = int((drawn_groups == group).sum())
    whose = "" if own_group < 0 else f"; its own is {column.named(own_group)}"
    sentence = f"{_of_strongest(count, len(drawn_groups))} of {column.named(group)}, {expected:.1f} by chance{whose}"
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


def _copy_check(explained: Explanation, support: Support) -> SupportCheck | None:
    nearest = support.nearest
    if nearest is None:
        return None
    identifier = explained.train.ids[nearest.position].item()
    tail = nearest.tail if nearest.is_copy else 1.0
    how = "equal" if nearest.is_equal else f"nearly equal (at {nearest.distance:.1%} of the usual distance)"
    return SupportCheck("copy", tail, tail, f"Training example {identifier} is {how} to it")


def _pairs(strata: Positions, inside: NDArray[np.bool_]) -> Positions:
    return np.stack([strata, inside.astype(np.intp)], axis=1)


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

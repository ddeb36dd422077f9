"""What real retraining said of the scores, for the trust strip, the scatter plot and the intervals of single scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from upweight.core.examples import Id
from upweight.core.scores import Scores, Unit
from upweight.report.wording import count, number, short

if TYPE_CHECKING:
    from upweight.evaluate.verify import Check

LEVEL = 0.9
MOST_SIDE = 10  # intervals per query and side
MOST_WORK = 50_000_000  # every interval looks at all scores of every removal; this is some seconds
MOST_POINTS = 20_000


def check_data(check: Check, query_ids: Sequence[Id]) -> dict[str, Any]:
    """The points of the plot; `queries` says which of the page's queries each row belongs to (−1: none of them)."""
    here = {identifier: place for place, identifier in enumerate(query_ids)}
    asked = np.asarray(check.query_ids).tolist()
    rows = max(1, MOST_POINTS // max(1, len(check.removals)))
    # Rows of queries on this page come first, so that a cut never takes the points of the query being looked at.
    order = sorted(range(len(asked)), key=lambda row: asked[row] not in here)[:rows]
    note = "" if rows >= len(asked) else f"The plot shows {rows:,} of {count(len(asked), 'query')} that were verified."
    predicted, actual = np.asarray(check.predicted), np.asarray(check.actual)
    return {
        "queries": [here.get(asked[row], -1) for row in order],
        "removals": [
            {"name": _name(removal), "kind": removal.kind, "size": len(removal.ids)} for removal in check.removals
        ],
        "predicted": [[number(v) for v in predicted[row]] for row in order],
        "actual": [[number(v) for v in actual[row]] for row in order],
        "agreement": {kind: _agreement(check, kind) for kind in ("one", "group")},
        "note": note,
    }


def intervals(
    check: Check | None, scores: Scores, wanted: Sequence[Sequence[Id]]
) -> tuple[dict[tuple[int, Id], list[float | None]], list[str]]:
    """[low, high] per (query's place, training example), and notes: where the effect of removing it likely lies.

    `wanted` lists each query's training examples, strongest first.
    """
    # RANK scores have no size, so an interval around them would be in no unit at all.
    if check is None or scores.unit != Unit.EFFECT or not same_scores(check, scores):
        return {}, []
    if all(removal.kind != "one" for removal in check.removals):
        return {}, []
    ids = list(dict.fromkeys(place[rank] for rank in range(2 * MOST_SIDE) for place in wanted if rank < len(place)))
    most = max(20, MOST_WORK // (len(check.removals) * scores.values.size))
    found: dict[tuple[int, Id], list[float | None]] = {}
    for identifier in ids[:most]:
        low, high = check.interval((identifier,), level=LEVEL)
        for place, there in enumerate(wanted):
            if identifier in there:
                found[place, identifier] = [number(low[place]), number(high[place])]
    left = f"Intervals are on this page for the {most:,} strongest of {len(ids):,} training examples shown."
    return found, [left] if len(ids) > most else []


def same_scores(check: Check, scores: Scores) -> bool:
    """Whether the verification was of these very scores (also after save and load)."""
    return all(
        np.array_equal(getattr(check.scores, name), getattr(scores, name))
        for name in ("query_ids", "train_ids", "values")
    )


def _name(removal: Any) -> str:
    alone = len(removal.ids) == 1 and str(removal.ids[0]) == removal.name
    return f"training example {removal.name}" if alone else str(removal.name)


def _agreement(check: Check, kind: Literal["one", "group"]) -> list[tuple[str, str]]:
    if all(removal.kind != kind for removal in check.removals):
        return []
    found = check.of(kind)
    return [("slope", short(found.slope)), ("Pearson", short(found.pearson)), ("Spearman", short(found.spearman))]


def trust(check: Check | None, scores: Scores) -> list[dict[str, str]]:
    """The cells of the trust strip: how far the scores agree with retraining."""
    if check is None:
        return []
    sized = "1 = the sizes are right" if scores.unit == Unit.EFFECT else "RANK scores promise no size"
    return [
        {"name": "slope", "value": short(check.slope), "means": sized},
        {"name": "Pearson", "value": short(check.pearson), "means": "1 = on one line"},
        {"name": "Spearman", "value": short(check.spearman), "means": "1 = the order is right"},
    ]

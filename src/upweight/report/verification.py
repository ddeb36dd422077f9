"""The verification of scores on the page: summary, scatter plot, and intervals of single scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from upweight.core.examples import Id
from upweight.core.scores import Scores, Unit
from upweight.evaluate.verdict import Verdict
from upweight.report.wording import count, number, short

if TYPE_CHECKING:
    from upweight.evaluate.verify import Check

LEVEL = 0.9
MAX_INTERVALS_PER_SIDE = 10  # per query
MAX_INTERVAL_WORK = 50_000_000  # each interval reads all scores of every removal; this takes some seconds
MAX_POINTS = 20_000


def check_data(check: Check, query_ids: Sequence[Id]) -> dict[str, Any]:
    """The points of the plot. `queries` holds the position of each row's query on the page, −1 if it is not there."""
    on_page = {identifier: position for position, identifier in enumerate(query_ids)}
    verified = np.asarray(check.query_ids).tolist()
    rows = max(1, MAX_POINTS // max(1, len(check.removals)))
    # Queries on this page come first, so that their points are not cut.
    order = sorted(range(len(verified)), key=lambda row: verified[row] not in on_page)[:rows]
    note = ""
    if rows < len(verified):
        note = f"The plot shows {rows:,} of the {count(len(verified), 'query')} that were verified."
    predicted, actual = np.asarray(check.predicted), np.asarray(check.actual)
    return {
        "queries": [on_page.get(verified[row], -1) for row in order],
        "removals": [
            {"name": _name(removal), "kind": removal.kind, "size": len(removal.ids)} for removal in check.removals
        ],
        "predicted": [[number(v) for v in predicted[row]] for row in order],
        "actual": [[number(v) for v in actual[row]] for row in order],
        "agreement": {kind: _agreement(check, kind) for kind in ("one", "group")},
        "note": note,
    }


def intervals(
    check: Check | None, scores: Scores, strongest: Sequence[Sequence[Id]]
) -> tuple[dict[tuple[int, Id], list[float | None]], list[str]]:
    """The interval [low, high] of the actual effect per (position of the query, training example), and notes.

    If scores have intervals of their own, they are on the page; else those of the verification are. `strongest` lists
    the training examples of each query, strongest first.
    """
    # RANK scores have no unit, so their intervals would have none either.
    if scores.half_widths is not None and scores.unit == Unit.EFFECT:
        return _estimated(scores, strongest), []
    if check is None or scores.unit != Unit.EFFECT or not same_scores(check, scores):
        return {}, []
    if all(removal.kind != "one" for removal in check.removals):
        return {}, []
    ids = list(
        dict.fromkeys(
            examples[rank]
            for rank in range(2 * MAX_INTERVALS_PER_SIDE)
            for examples in strongest
            if rank < len(examples)
        )
    )
    limit = max(20, MAX_INTERVAL_WORK // (len(check.removals) * scores.values.size))
    found_intervals: dict[tuple[int, Id], list[float | None]] = {}
    for identifier in ids[:limit]:
        low, high = check.interval((identifier,), level=LEVEL)
        for position, examples in enumerate(strongest):
            if identifier in examples:
                found_intervals[position, identifier] = [number(low[position]), number(high[position])]
    note = f"Only the {limit:,} strongest of the {len(ids):,} training examples shown have an interval on this page."
    return found_intervals, [note] if len(ids) > limit else []


def _estimated(scores: Scores, strongest: Sequence[Sequence[Id]]) -> dict[tuple[int, Id], list[float | None]]:
    """The intervals that scores from random trainings have themselves."""
    ranges: dict[tuple[int, Id], list[float | None]] = {}
    for position, examples in enumerate(strongest):
        for identifier in examples:
            low, high = scores.interval(scores.query_ids[position].item(), identifier) or (0.0, 0.0)
            if high > low:
                ranges[position, identifier] = [number(low), number(high)]
    return ranges


def same_scores(check: Check, scores: Scores) -> bool:
    """Whether the verification was of exactly these scores (also after save and load)."""
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
    agreement = check.of(kind)
    slope = [("slope", short(agreement.slope))] if check.scores.unit == Unit.EFFECT else []
    return [*slope, ("Pearson", short(agreement.pearson)), ("Spearman", short(agreement.spearman))]


def judged(check: Check | None, scores: Scores) -> Scores:
    """The scores with the verdict of their verification as diagnostics and unit; as they are if it was of others."""
    if check is None or not same_scores(check, scores):
        return scores
    facts = {**scores.diagnostics, "verdict": str(check.judge())}
    facts["warnings"] = list(dict.fromkeys([*scores.diagnostics.get("warnings", ()), *check.verdict_warnings]))
    return replace(scores, unit=check.judged.unit, diagnostics=facts)


def headline(check: Check | None, scores: Scores) -> str:
    """The title of the summary. "Verified" stands only over scores that were verified and agree with retraining."""
    if check is None or not same_scores(check, scores):
        return "Not verified"
    checked = "Verified" if check.verdict is Verdict.AGREES else "Checked"
    return f"{checked} by {check.judged_removals}: {check.judge()}"


def trust(check: Check | None, scores: Scores) -> list[dict[str, str]]:
    """Summary of how far the scores agree with retraining: the numbers behind the verdict."""
    if check is None or not same_scores(check, scores):
        return []
    agreed = check.judge().agreement
    noun = "single examples" if any(removal.kind == "one" for removal in check.removals) else "groups"
    if not np.isfinite(agreed.slope):
        size = "withheld: predictions hardly vary"
    else:
        size = "1 = the sizes are right" if check.verdict is Verdict.AGREES else "not confirmed"
    slope = {"name": f"slope of {noun}", "value": short(agreed.slope), "means": size}
    return [
        *([slope] if check.scores.unit == Unit.EFFECT else []),
        {"name": "Pearson", "value": short(agreed.pearson), "means": "1 = on one line"},
        {"name": "Spearman", "value": short(agreed.spearman), "means": "1 = the order is right"},
    ]

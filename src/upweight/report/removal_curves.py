"""Removal curves, what the strongest examples alone are worth, and how few flip each prediction, for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from upweight.evaluate.agreement import finite_mean, finite_or_none, formatted
from upweight.evaluate.brittleness import Brittleness, Flip
from upweight.evaluate.example_criteria import ExampleCriteria
from upweight.evaluate.removal_curve import SIDES, RemovalCurve
from upweight.report.svg_plots import Line, lines
from upweight.report.wording import count

IDS_LISTED = 8  # of one removal


def curve_plots(curves: Mapping[str, RemovalCurve]) -> list[dict[str, Any]]:
    """One plot per method: the mean effect over queries against the number of removed examples."""
    return [_plot(name, curve) for name, curve in curves.items()]


def _plot(name: str, curve: RemovalCurve) -> dict[str, Any]:
    spread = finite_mean(curve.spread, axis=0)
    curves = [
        Line(side, curve.sizes, curve.mean(side).tolist(), spread.tolist() if side == "random" else None)
        for side in SIDES
    ]
    last = [(side, formatted(curve.mean(side)[-1])) for side in SIDES]
    return {
        "title": name,
        "svg": lines(curves, ("examples removed", "effect"), f"{name}: effect of removing the strongest"),
        "numbers": [(side, value) for side, value in last],
        "notes": [f"{count(len(curve.query_ids), 'query')}; the numbers are for {curve.sizes[-1]:,} removed examples."],
    }


def flip_table(brittleness: Brittleness) -> dict[str, Any]:
    """One row per query, and a sentence that sums them up."""
    flipped = sum(flip.size is not None for flip in brittleness.flips)
    median = finite_or_none(brittleness.median)
    middle = "fewer than half flipped, so there is no median" if median is None else f"the median is {median:g}"
    share = f"{flipped} of {count(len(brittleness.flips), 'prediction')}"
    return {
        "head": ["query", "prediction", "after removal", "removed", "removed examples, strongest first"],
        "rows": [_row(flip) for flip in brittleness.flips],
        "summary": f"{share} flipped when at most {brittleness.most:,} examples were removed; {middle}. "
        f"{brittleness.trainings:,} trainings.",
    }


def criteria_table(criteria: ExampleCriteria) -> dict[str, Any]:
    """One row per method: the areas, and the mean curves over queries."""
    return {
        "head": [
            *["method", "necessity", *[f"without {size:,}" for size in criteria.sizes]],
            *["sufficiency", *[f"{size:,} alone" for size in criteria.sizes]],
        ],
        "rows": [
            [
                name,
                *[need, *map(formatted, finite_mean(criteria.necessity[name], axis=0))],
                *[enough, *map(formatted, finite_mean(criteria.sufficiency[name], axis=0))],
            ]
            for name, need, enough in criteria.cells()
        ],
        "summary": f"{count(len(criteria.query_ids), 'query')}, {criteria.trainings:,} trainings.",
    }


def _row(flip: Flip) -> list[str]:
    if flip.size is None:
        why = f" ({flip.note})" if flip.note else ""
        return [str(flip.query), str(flip.before), "–", f"> {flip.tried:,}", f"not flipped{why}"]
    names = ", ".join(str(i) for i in flip.removed[:IDS_LISTED])
    more = f" and {flip.size - IDS_LISTED:,} more" if flip.size > IDS_LISTED else ""
    return [str(flip.query), str(flip.before), str(flip.after), f"{flip.size:,}", names + more]

"""What removing the strongest did: curves beside chance, and how few examples flip a prediction; for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from upweight.evaluate.agreement import finite_mean, finite_or_none, formatted
from upweight.evaluate.brittleness import Brittleness, Flip
from upweight.evaluate.removal_curve import SIDES, RemovalCurve
from upweight.report.svg_plots import Line, lines
from upweight.report.wording import count

SHOWN = 8  # ids of a removal that are written out


def curve_plots(curves: Mapping[str, RemovalCurve]) -> list[dict[str, Any]]:
    """One plot for every method: the mean effect over queries against how many examples went."""
    return [_plot(name, curve) for name, curve in curves.items()]


def _plot(name: str, curve: RemovalCurve) -> dict[str, Any]:
    spread = finite_mean(curve.spread, axis=0)
    drawn = [
        Line(side, curve.sizes, curve.mean(side).tolist(), spread.tolist() if side == "random" else None)
        for side in SIDES
    ]
    last = [(side, formatted(curve.mean(side)[-1])) for side in SIDES]
    return {
        "title": name,
        "svg": lines(drawn, ("examples removed", "effect"), f"{name}: effect of removing the strongest"),
        "numbers": [(side, value) for side, value in last],
        "notes": [f"{count(len(curve.query_ids), 'query')}; numbers are those of {curve.sizes[-1]:,} examples."],
    }


def flip_table(found: Brittleness) -> dict[str, Any]:
    """Rows for every query, and in a sentence what it took."""
    flipped = sum(flip.size is not None for flip in found.flips)
    median = finite_or_none(found.median)
    middle = "fewer than half were flipped" if median is None else f"in the middle it takes {median:g}"
    share = f"{flipped} of {count(len(found.flips), 'prediction')}"
    return {
        "head": ["query", "predicted", "without them", "examples", "which, strongest first"],
        "rows": [_row(flip) for flip in found.flips],
        "told": f"{share} flipped without {found.most:,} examples or fewer; {middle}. {found.trainings:,} trainings.",
    }


def _row(flip: Flip) -> list[str]:
    if flip.size is None:
        why = f" ({flip.note})" if flip.note else ""
        return [str(flip.query), str(flip.before), "–", f"> {flip.tried:,}", f"not flipped{why}"]
    names = ", ".join(str(i) for i in flip.removed[:SHOWN])
    more = f" and {flip.size - SHOWN:,} more" if flip.size > SHOWN else ""
    return [str(flip.query), str(flip.before), str(flip.after), f"{flip.size:,}", names + more]

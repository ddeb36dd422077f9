"""Scores whose sizes are corrected by the slope of a verification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from upweight.core.scores import Scores
from upweight.evaluate.verdict import Judgement, Verdict


def require_correctable(slope: float, band: tuple[float, float], judgement: Judgement) -> None:
    """Raise ValueError for a slope that may be 0 or negative, and for scores that do not predict retraining."""
    low, high = band
    if not (slope > 0 and low > 0):
        raise ValueError(f"expected a slope above 0, got {slope:.3g} in [{low:.3g}, {high:.3g}]: no factor corrects it")
    if judgement.verdict is Verdict.FAILS:
        raise ValueError(
            f"expected scores that predict retraining, got {judgement.numbers()}: no factor corrects these"
        )


def multiplied(scores: Scores, slope: float, facts: Mapping[str, Any]) -> Scores:
    """The scores, and their half widths, times the slope; recipe and warnings say so.

    `facts` are the `band` of the slope (low and high), its `level`, the `kind` of the removals and how many there were.
    """
    (low, high), count = facts["band"], facts["removals"]
    warning = (
        f"Sizes were multiplied by {slope:.3g} (band {low:.3g} to {high:.3g}), the slope of {count} removals. "
        "These removals are no evidence for the result; verify it with another seed."
    )
    diagnostics = {**scores.diagnostics, "warnings": [*scores.diagnostics.get("warnings", ()), warning]}
    recipe = {**scores.recipe, "calibrated": {"factor": slope, **facts}}
    scaled = replace(scores, values=slope * scores.values, recipe=recipe, diagnostics=diagnostics)
    return scaled if scaled.half_widths is None else replace(scaled, half_widths=slope * scaled.half_widths)

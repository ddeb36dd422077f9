"""The page of slices: one table of training groups per slice of queries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from upweight.applications.slices import Slices
from upweight.evaluate.verdict import result_words
from upweight.report.effect_tables import MAX_ROWS, EffectRow, application_page, effect_table, signed, unit_text
from upweight.report.wording import count


def slices_page(slices: Slices, description: Sequence[str] = ()) -> str:
    """One table per slice, the most harmful groups first."""
    sections = []
    for s, (name, ids) in enumerate(slices.slices.items()):
        rows = [_row(slices, g, s, len(ids)) for g in np.argsort(slices.effects[:, s], kind="stable")[:MAX_ROWS]]
        sections.append(
            effect_table(
                f"{name}: {count(len(ids), 'query')}",
                "training group",
                ["examples", "effect", "by retraining", "predictions flipped"],
                "effect, interval, retraining",
                rows,
            )
        )
    return application_page(
        "Which training groups caused these failures?",
        [
            count(len(slices.groups.names), "group"),
            count(len(slices.slices), "slice"),
            slices.measurement,
            unit_text(slices.unit, slices.verdict),
            f"checked by retraining: {result_words(slices.judgement)}"
            if slices.judgement
            else "not checked by retraining",
        ],
        "An effect is the mean measurement of the slice with the group minus without it. If it is negative, the model "
        "would do better on the slice without the group.",
        sections,
        slices.diagnostics["warnings"],
        ["Intervals are 90 % bootstrap intervals over the queries of the slice. Groups of different columns overlap."],
        description,
    )


def _row(slices: Slices, g: int, s: int, queries: int) -> EffectRow:
    effect, actual = float(slices.effects[g, s]), float(slices.actual[g, s])
    flipped = f"{slices.flips[g, s]} of {queries}" if math.isfinite(actual) else "–"
    cells = [f"{len(slices.groups.members[g]):,}", signed(effect), signed(actual), flipped]
    interval = (float(slices.low[g, s]), float(slices.high[g, s]))
    return EffectRow(slices.groups.names[g], cells, effect, interval, actual)

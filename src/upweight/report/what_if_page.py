"""The page of what_if: one table of queries per change of the training set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from upweight.applications.what_if import WhatIf
from upweight.evaluate.verdict import result_words
from upweight.report.effect_tables import (
    MAX_ROWS,
    MAX_TABLES,
    EffectRow,
    application_page,
    effect_table,
    signed,
    unit_text,
)
from upweight.report.wording import count, label_text


def what_if_page(result: WhatIf, description: Sequence[str] = ()) -> str:
    """One table per change, the queries with the largest predicted effects first."""
    sections = []
    for j, (name, change) in enumerate(list(result.changes.items())[:MAX_TABLES]):
        order = np.argsort(-np.abs(result.predicted[:, j]), kind="stable")[:MAX_ROWS]
        text = f"{count(change.size, 'training example')} changed"
        if result.after:
            text += f", {count(len(result.flipped(name)), 'prediction')} flipped"
        sections.append(
            effect_table(
                name,
                "query",
                ["prediction", "predicted effect", "by retraining"],
                "predicted, interval, retraining",
                [_row(result, q, j) for q in order],
                text,
            )
        )
    method = "predicted at the new optimum" if result.form == "newton" else "predicted to first order"
    return application_page(
        "What would change with another training set?",
        [
            count(len(result.changes), "change"),
            count(len(result.queries), "query"),
            result.measurement,
            unit_text(result.unit),
            f"checked by retraining: {result_words(result.judgement)}"
            if result.judgement
            else "not checked by retraining",
            method,
        ],
        "An effect is the measurement of the query with the change minus without it.",
        sections,
        result.diagnostics["warnings"],
        ["Intervals hold the actual effect with 90 % probability, if the change is like random ones of the same size."],
        description,
    )


def _row(result: WhatIf, q: int, j: int) -> EffectRow:
    before = label_text(result.before.predicted[q]) or "–"
    after = (label_text(result.after[j].predicted[q]) or "–") if result.after else before
    predicted = float(result.predicted[q, j])
    actual = math.nan if result.actual is None else float(result.actual[q, j])
    interval = None
    if result.low is not None and result.high is not None:
        interval = float(result.low[q, j]), float(result.high[q, j])
    prediction = before if before == after else f"{before} → {after}"
    cells = [prediction, signed(predicted), signed(actual)]
    return EffectRow(f"query {result.queries.ids[q].item()}", cells, predicted, interval, actual)

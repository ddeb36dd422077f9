"""The page of what_if: one table of queries per change of the training set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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

INTERVALS = (
    "Intervals hold the actual effect with 90 % probability, if the change is like random ones of the same size."
)
METHODS = {
    "newton": "predicted at the new optimum",
    "first": "predicted to first order",
    "retraining": "nothing was predicted",
}


def what_if_page(result: WhatIf, description: Sequence[str] = ()) -> str:
    """One table per change, the queries with the largest predicted effects first."""
    sections, nothing_predicted = [], result.predicted is None
    for j, (name, change) in enumerate(list(result.changes.items())[:MAX_TABLES]):
        order = np.argsort(-np.abs(_main_effects(result)[:, j]), kind="stable")[:MAX_ROWS]
        text = f"{count(change.size, 'training example')} changed"
        if result.after:
            text += f", {count(len(result.flipped(name)), 'prediction')} flipped"
        sections.append(
            effect_table(
                name,
                "query",
                ["prediction", "by retraining"]
                if nothing_predicted
                else ["prediction", "predicted effect", "by retraining"],
                "by retraining" if nothing_predicted else "predicted, interval, retraining",
                [_row(result, q, j) for q in order],
                text,
            )
        )
    method, checked = METHODS[result.form], "not checked by retraining"
    if result.judgement:
        checked = f"checked by retraining: {result_words(result.judgement)}"
    elif nothing_predicted:
        checked = "each change was retrained"
    return application_page(
        "What would change with another training set?",
        [
            count(len(result.changes), "change"),
            count(len(result.queries), "query"),
            result.measurement,
            unit_text(result.unit, result.verdict),
            checked,
            method,
        ],
        "An effect is the measurement of the query with the change minus without it.",
        sections,
        result.diagnostics["warnings"],
        [] if nothing_predicted else [INTERVALS],
        description,
    )


def _main_effects(result: WhatIf) -> NDArray[np.float64]:
    """Predicted effects, or those by retraining if none were predicted."""
    effects = result.actual if result.predicted is None else result.predicted
    assert effects is not None
    return effects


def _row(result: WhatIf, q: int, j: int) -> EffectRow:
    before = label_text(result.before.predicted[q]) or "–"
    after = (label_text(result.after[j].predicted[q]) or "–") if result.after else before
    prediction = before if before == after else f"{before} → {after}"
    name, effect = f"query {result.queries.ids[q].item()}", float(_main_effects(result)[q, j])
    if result.predicted is None:
        return EffectRow(name, [prediction, signed(effect)], effect)
    actual = math.nan if result.actual is None else float(result.actual[q, j])
    interval = None
    if result.low is not None and result.high is not None:
        interval = float(result.low[q, j]), float(result.high[q, j])
    return EffectRow(name, [prediction, signed(effect), signed(actual)], effect, interval, actual)

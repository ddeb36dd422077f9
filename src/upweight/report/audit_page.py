"""The page of an audit: the flagged predictions with their strongest proponents, then all in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from upweight.applications.audit_results import UNKNOWN, Audit, AuditedPrediction, GroupColumn
from upweight.core.examples import Id
from upweight.report.document import rendered
from upweight.report.previews import Album, example_card
from upweight.report.wording import count, label_text, significant

MAX_CARDS = 40  # predictions with their proponents
MAX_ROWS = 300  # of the table
PROPONENTS = {"image": 8, "text": 4, "row": 4}  # shown of one prediction
DEFINITION = (
    "Proponents are training examples that speak for a prediction; of a mistake, those that speak for the label that "
    "was predicted. They are ordered by their scores over the roots of their self-influences, and the strongest are "
    "compared with random training examples of the same labels."
)


def audit_page(result: Audit, description: Sequence[str] = ()) -> str:
    """Flagged predictions as cards, most surprising first, and a table of all."""
    album = Album(result.train, result.queries)
    flagged = [prediction for prediction in result.predictions if prediction.flagged]
    reasons = Counter(check.name for prediction in flagged for check in prediction.checks if check.surprising)
    return rendered(
        "audit.html.j2",
        ("application.css", "audit.css"),
        (),
        None,
        description,
        title="Are these predictions supported by examples that have to do with them?",
        facts=[
            f"{len(flagged):,} of {count(len(result.predictions), 'prediction')} flagged",
            *[f"{number:,} by {name}" for name, number in reasons.most_common()],
            f"{len(result.train):,} training examples",
            f"level {result.level:g}",
        ],
        definition=DEFINITION,
        warnings=result.diagnostics["warnings"],
        usual=result.diagnostics["notes"],
        cards=[_card(result, album, prediction) for prediction in flagged[:MAX_CARDS]],
        left_out=max(0, len(flagged) - MAX_CARDS),
        columns=_columns(result),
        rows=[_row(result, prediction) for prediction in result.predictions[:MAX_ROWS]],
        rows_left_out=max(0, len(result.predictions) - MAX_ROWS),
        about=album.remarks(),
    )


def _card(result: Audit, album: Album, prediction: AuditedPrediction) -> dict[str, Any]:
    kind = result.train.preview(result.train.ids[0].item()).kind
    shown = prediction.proponents[: PROPONENTS[kind]]
    return {
        "query": example_card(album, "query", prediction.id),
        "predicted": label_text(prediction.predicted),
        "label": None if prediction.label == prediction.predicted else label_text(prediction.label),
        "sentences": [check.sentence for check in prediction.checks if check.surprising],
        "facts": _facts(result, prediction),
        "proponents": [{**example_card(album, "train", a.id), "notes": _notes(result, a.id)} for a in shown],
        "count": len(prediction.proponents),
    }


def _facts(result: Audit, prediction: AuditedPrediction) -> list[tuple[str, str]]:
    facts = []
    if (share := prediction.shares["label"]) is not None:
        facts.append((f"of its support from label {label_text(prediction.supported)}", _percent(share)))
    for column in result.columns:
        group = int(column.queries[result.queries.positions([prediction.id])[0]])
        if group != UNKNOWN:
            share = prediction.shares[column.column]
            facts.append((f"of its support from {column.named(group)}, its own", _percent(share)))
    facts.append(("effective proponents", significant(prediction.effective, 3)))
    if prediction.distance is not None:
        facts.append(
            ("of examples of their labels are nearer than its strongest: 50% by chance", _percent(prediction.distance))
        )
    if prediction.nearest is not None:
        facts.append((f"the usual distance to the nearest example, {prediction.nearest_id}", _distance(prediction)))
    return facts


def _notes(result: Audit, identifier: Id) -> list[str]:
    """The label and the groups of a training example."""
    position = int(result.train.positions([identifier])[0])
    groups = [_group(column, int(column.train[position])) for column in result.columns]
    label = label_text(result.train.label(identifier))
    return [*([] if label is None else [label]), *groups]


def _columns(result: Audit) -> list[str]:
    return ["predicted", "same label", *[f"own {column.column}" for column in result.columns], "effective", "nearest"]


def _row(result: Audit, prediction: AuditedPrediction) -> dict[str, Any]:
    names = ["label", *[column.column for column in result.columns]]
    return {
        "id": str(prediction.id),
        "flagged": prediction.flagged,
        "cells": [
            label_text(prediction.predicted) or "–",
            *[_percent(prediction.shares.get(name)) for name in names],
            significant(prediction.effective, 3),
            _distance(prediction),
        ],
        "p": "1" if prediction.p == 1 else significant(prediction.p, 2),
    }


def _group(column: GroupColumn, group: int) -> str:
    """`clinic`, and `age ≤ 26` for a range of numbers."""
    name = column.names[group]
    return name.removeprefix("= ") if name.startswith("= ") else column.named(group)


def _distance(prediction: AuditedPrediction) -> str:
    """The distance to the nearest training example."""
    nearest = prediction.nearest
    if nearest is None:
        return "–"
    return "equal" if nearest.is_equal else f"{significant(nearest.distance, 2)} ×"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
